"""How a supervisor sees that a process works: questions over its socket, each with a deadline."""

from __future__ import annotations

import asyncio
import http.client
import socket
from pathlib import Path

import grpc

_TIMEOUT_SECONDS = 2.0
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
# HealthCheckResponse{status: SERVING} as bytes: one enum needs no generated code.
_SERVING = b"\x08\x01"


async def accepts(path: Path) -> bool:
    """Return whether something listens on the socket."""
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            _, writer = await asyncio.open_unix_connection(path)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def worker_serves(path: Path) -> bool:
    """Return whether the worker takes requests (gRPC health: SERVING)."""
    return await _health(path) == _SERVING


async def worker_answers(path: Path) -> bool:
    """Return whether the worker's event loop runs: any answer will do, also NOT_SERVING."""
    return await _health(path) is not None


async def envoy_answers(admin: Path) -> bool:
    """Return whether Envoy has all its listeners and clusters (its `/ready`)."""
    return await _admin(admin, "/ready") is not None


async def healthy_workers(admin: Path) -> int:
    """Return how many workers Envoy sends requests to."""
    return await _gauge(admin, "cluster.sidecar.membership_healthy") or 0


async def requests_of_clients(admin: Path) -> int | None:
    """Return how many requests Envoy's clients have running; None where Envoy does not answer."""
    return await _gauge(admin, "http.public.downstream_rq_active")


async def turn_clients_away(admin: Path) -> bool:
    """Let Envoy ask clients to connect anew, elsewhere; it goes on serving. False if it does not answer."""
    return await _admin(admin, "/drain_listeners?graceful&skip_exit", "POST") is not None


async def listeners(admin: Path) -> str:
    """Return Envoy's list of listeners as JSON, with the ports that it really uses."""
    return await _admin(admin, "/listeners?format=json") or "{}"


async def statistics(admin: Path) -> str | None:
    """Return Envoy's own metrics as Prometheus reads them; None where it does not answer."""
    return await _admin(admin, "/stats/prometheus?usedonly")


async def page(admin: Path, path: str) -> str | None:
    """Return a page of Envoy's admin interface (`/clusters`); None where it does not answer, or has none."""
    return await _admin(admin, path)


async def _gauge(admin: Path, name: str) -> int | None:
    answer = await _admin(admin, f"/stats?filter=^{name}$") or ""
    _, _, count = answer.partition(f"{name}: ")
    return int(count) if count.strip().isdigit() else None


async def _health(path: Path) -> bytes | None:
    # A channel of its own, because a shared one would wait before it connects again.
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"unix:{path}", options=options) as channel:
        check = channel.unary_unary(_HEALTH_CHECK, bytes, bytes)
        try:
            return await check(b"", timeout=_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError:
            return None


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, from the standard library: no second client for three questions."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT_SECONDS)
        self.sock.connect(str(self._path))


async def _admin(admin: Path, path: str, method: str = "GET") -> str | None:
    return await asyncio.to_thread(_ask, admin, path, method)


def _ask(admin: Path, path: str, method: str) -> str | None:
    connection = _UnixConnection(admin)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if answer.status == http.client.OK else None
