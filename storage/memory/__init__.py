"""A store in the memory of one process, for tests and for trying Holdfast out: nothing survives it."""

from storage.memory.blobs import MemoryBlobs
from storage.memory.store import MemoryStore

__all__ = ["MemoryBlobs", "MemoryStore"]
