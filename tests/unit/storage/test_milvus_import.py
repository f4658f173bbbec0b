"""pymilvus is imported beside the event loop: that takes seconds, in which leases run out."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import asyncio, sys, threading
from engine.errors import IndexUnavailable
from storage.milvus.client import open_client

class Seen:
    threads = []

    def find_spec(self, name, path=None, target=None):
        if name == "pymilvus":
            self.threads.append(threading.current_thread())

async def main():
    async with open_client("unix:/nowhere", timeout=30.0) as client:
        try:
            await client.call(lambda connected: connected.list_collections())
        except IndexUnavailable:
            pass

assert "pymilvus" not in sys.modules
sys.meta_path.insert(0, Seen())
asyncio.run(main())
assert Seen.threads and threading.main_thread() not in Seen.threads, Seen.threads
"""


def test_the_client_is_imported_in_a_thread() -> None:
    """P4: a worker that connects to its index for the first time goes on with what it runs."""
    subprocess.run([sys.executable, "-c", _SCRIPT], check=True, timeout=120)
