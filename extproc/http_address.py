"""Where the HTTP listener listens: `HOST:PORT`, `:PORT` for this machine alone, or `unix:PATH`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# A listener that nobody protects is for this machine, unless an address says otherwise.
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host (a name or an address, without brackets) and a port; 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The path of a unix socket."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


HttpAddress = TcpAddress | UnixAddress


def parse_http_address(text: str) -> HttpAddress:
    """Return the address; raises `ValueError` with a reason."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path:
            raise ValueError("must be unix:PATH")
        return UnixAddress(Path(path))
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise ValueError("must be HOST:PORT, :PORT or unix:PATH")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("must have its IPv6 address in brackets: [::1]:8080")
    return TcpAddress(host.strip("[]") or LOOPBACK, int(port))


def of_worker(address: HttpAddress, index: int) -> HttpAddress:
    """Return where one worker listens: a port is shared by all, a socket is one worker's own.

    Worker 0 has the path as it is, worker 1 has it with `-1` behind it, and so on.
    """
    if isinstance(address, TcpAddress) or index == 0:
        return address
    return UnixAddress(address.path.with_name(f"{address.path.name}-{index}"))
