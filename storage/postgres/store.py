"""The engine's store over Postgres, put together from its parts."""

from __future__ import annotations

from storage.limits import READS, Reads
from storage.postgres.attachments import Attachments
from storage.postgres.connectors import Connectors
from storage.postgres.conversations import Conversations
from storage.postgres.files import Files
from storage.postgres.ingestions import Ingestions
from storage.postgres.pool import Pool
from storage.postgres.prompts import Prompts
from storage.postgres.reading import Reading
from storage.postgres.removal import Removal
from storage.postgres.runs import Runs
from storage.postgres.vector_stores import VectorStores
from storage.postgres.writer import Writer
from storage.postgres.writing import Writing


class PostgresStore(
    Reading,
    Writing,
    Runs,
    Removal,
    Conversations,
    Connectors,
    Prompts,
    Files,
    VectorStores,
    Attachments,
    Ingestions,
):
    """`engine.ports.Store` over the tables of `sql/migrations`.

    Beside `StorageUnavailable`, writes raise `InvalidRequest` for names that cannot be stored and
    `Conflict` for a response id that exists. All statements of one tenant name it twice: in their
    conditions, and to row-level security (docs/adr/0007). `writer` is how concurrent writes are
    committed: in groups, unless told otherwise; `reads` bounds what is read at once.
    """

    def __init__(self, pool: Pool, writer: Writer | None = None, reads: Reads = READS) -> None:
        self._pool = pool
        self._reads = reads
        self._writer = Writer(pool) if writer is None else writer
