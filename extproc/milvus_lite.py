"""The private Milvus Lite of one machine: `python -m extproc.milvus_lite --data DIR --socket PATH`.

A process of its own, because Lite works in threads that would hold up an event loop. It ends with its
supervisor, and is started again by it. Lite as it is shipped loses data, so its gRPC service is put right:

* one call at a time of each collection: two writers at once tear its log apart, and a search during a flush
  misses what is on its way from memory to a file;
* collections are opened, made and dropped one at a time: opened twice, each would have a log of its own;
* all collections are loaded before the first call, because Lite forgets at each start that they were;
* what was written is moved to files as soon as nothing more comes: what is still in memory is read row by row
  in every search, a quarter of a millisecond for each;
* a collection that could not be written, because the disk is full, is read again from its files: its log ends
  in a half of what was refused, behind which nothing is found again, and what Lite could not move to files it
  has let go of, and would delete the log of;
* `AllocTimestamp` is answered, without which pymilvus's asynchronous client cannot make an index.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from milvus_lite.db import MilvusLite
from milvus_lite.exceptions import CollectionNotFoundError
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc

_LOG = logging.getLogger(__name__)

_THREADS = 16
_MESSAGE_BYTES = 256 << 20
_GRACE_SECONDS = 5.0
_DATABASE = "default"
_SUCCESS = 0

_SETTLED_SECONDS = 0.5
# Until what could not be written to files is tried again, where nothing more is written.
_AGAIN_SECONDS = 30.0

_WRITES = ("Insert", "Upsert", "Delete")
_OF_ONE_COLLECTION = (
    "Insert", "Upsert", "Delete", "Query", "Search", "HybridSearch", "Flush", "CreateIndex", "DropIndex",
    "LoadCollection", "ReleaseCollection", "GetCollectionStatistics", "TruncateCollection",
)  # fmt: skip
_OF_ALL_COLLECTIONS = ("CreateCollection", "DropCollection", "RenameCollection")


class Servicer(MilvusServicer):  # type: ignore[misc]
    """Lite's service, with its calls in an order that it can bear."""

    def __init__(self, db: MilvusLite) -> None:
        super().__init__(db)
        self._opening = threading.RLock()
        self._locks: dict[str, threading.RLock] = {}
        self._written: dict[str, float] = {}
        self._to_load = set(db.list_collections(database_name=_DATABASE))
        self._load_all()
        for name in _OF_ONE_COLLECTION:
            setattr(self, name, self._alone(getattr(self, name), writes=name in _WRITES))
        for name in _OF_ALL_COLLECTIONS:
            setattr(self, name, self._alone_of_all(getattr(self, name)))

    def AllocTimestamp(self, _request: object, _context: object) -> Any:
        """Return a timestamp as Milvus makes them: milliseconds, and 18 bits for a counter."""
        return milvus_pb2.AllocTimestampResponse(
            status=common_pb2.Status(code=0), timestamp=int(time.time() * 1000) << 18
        )

    def _get_collection(self, request: Any, context: object) -> Any:
        with self._opening:
            self._load(request.collection_name)
            return super()._get_collection(request, context)

    def _load_all(self) -> None:
        for name in list(self._to_load):
            try:
                self._load(name)
            except Exception:
                # Each call tries it again: on a disk that is full an index cannot be made.
                _LOG.exception("%s could not be loaded", name)

    def _load(self, name: str) -> None:
        if name in self._to_load:
            self._db.get_collection(name, database_name=_DATABASE).load()
            self._to_load.discard(name)

    def settle(self, ended: threading.Event) -> None:
        """Move what was written to files, whenever nothing more came for a moment; until `ended`."""
        while not ended.wait(_SETTLED_SECONDS):
            for name, written in list(self._written.items()):
                if time.monotonic() - written > _SETTLED_SECONDS:
                    with self._lock_of(name):
                        self._flush(name)

    def _flush(self, name: str) -> None:
        self._written.pop(name, None)
        try:
            with self._opening:
                collection = self._db.get_collection(name, database_name=_DATABASE)
            collection.flush()
        except CollectionNotFoundError:
            pass
        except Exception:
            # What is not in a file is in the log.
            _LOG.exception("%s could not be written to files", name)
            self._read_again(name)
            self._written[name] = time.monotonic() + _AGAIN_SECONDS

    def _read_again(self, name: str) -> None:
        """Forget what is in memory of a collection, and open its files and logs as at a start."""
        with self._opening:
            collection = self._db._collections.pop((_DATABASE, name), None)
            if collection is None:
                return
            collection._bg_executor.shutdown(wait=True)
            log = collection._wal
            for sink in (log._data_sink, log._delta_sink):
                if sink is not None:
                    with suppress(OSError):
                        sink.close()
            self._to_load.add(name)
            self._load(name)

    def _alone(self, call: Callable[[Any, Any], Any], *, writes: bool) -> Callable[[Any, Any], Any]:
        def locked(request: Any, context: Any) -> Any:
            with self._lock_of(request.collection_name):
                if not writes:
                    return call(request, context)
                self._written[request.collection_name] = time.monotonic()
                answer = call(request, context)
                if answer.status.code != _SUCCESS:
                    self._read_again(request.collection_name)
                return answer

        return locked

    def _alone_of_all(self, call: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def locked(request: Any, context: Any) -> Any:
            name = getattr(request, "collection_name", None) or request.oldName
            with self._lock_of(name), self._opening:
                return call(request, context)

        return locked

    def _lock_of(self, collection: str) -> threading.RLock:
        with self._opening:
            return self._locks.setdefault(collection, threading.RLock())


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; returns the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m extproc.milvus_lite", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory of the collections")
    parser.add_argument("--socket", type=Path, required=True, help="unix socket to listen on")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ended.set())
    arguments.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    db = MilvusLite(str(arguments.data))
    try:
        servicer = Servicer(db)
        server = _server(servicer, arguments.socket)
        servicer.settle(ended)
        server.stop(_GRACE_SECONDS).wait()
    finally:
        db.close()
    return 0


def _server(servicer: Servicer, socket: Path) -> grpc.Server:
    options = [
        ("grpc.max_receive_message_length", _MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MESSAGE_BYTES),
        # pymilvus pings every ten seconds, also when it asks nothing: gRPC takes that for an attack and
        # closes the connection, by default. Only our own workers reach this socket.
        ("grpc.http2.max_ping_strikes", 0),
    ]
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=options)
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(servicer, server)
    socket.unlink(missing_ok=True)
    server.add_insecure_port(f"unix:{socket.absolute()}")
    server.start()
    return server


if __name__ == "__main__":
    sys.exit(main())
