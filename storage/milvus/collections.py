"""Collections of the index: one for each embedding model and size of its vectors, made when it is needed.

The name of a collection says what is in it, so no worker has to ask another. Making one can be repeated, and
several may do it at once.
"""

from __future__ import annotations

import asyncio
from typing import Any

from storage.milvus.client import CollectionGone, MilvusClient
from storage.milvus.filters import model_digest

_DIGEST_LENGTH = 32
TEXT_BYTES = 65_535
"""Longest VARCHAR of Milvus."""

_ALREADY_THERE = "already exist"


class Collections:
    """The collections of one model among all of a prefix."""

    def __init__(self, client: MilvusClient, prefix: str, model: str) -> None:
        self._client = client
        self._prefix = f"{prefix}_"
        self._of_model = f"{self._prefix}{model_digest(model)}_"
        self._ready: set[str] = set()
        self._listed: set[str] | None = None
        self._making = asyncio.Lock()

    def name(self, dimension: int) -> str:
        """Return the name of the collection for vectors of so many numbers."""
        return f"{self._of_model}{dimension}"

    async def has(self, dimension: int) -> bool:
        """Tell whether there is a collection for vectors of so many numbers; it can be searched then."""
        name = self.name(dimension)
        return name in self._ready or name in await self.existing()

    async def existing(self) -> list[str]:
        """Return the collections of the model; all of them can be searched.

        Asks each time: another worker may have met vectors of another size.
        """
        async with self._making:
            names = [name for name in await self._list() if name.startswith(self._of_model)]
            for name in names:
                if name not in self._ready:
                    await self._make_ready(name)
        return sorted(names)

    async def provide(self, dimension: int) -> str:
        """Return the collection for vectors of so many numbers, made if there is none."""
        name = self.name(dimension)
        async with self._making:
            if name not in self._ready:
                await self._make_ready(name)
        return name

    def forget(self) -> None:
        """Look again: a collection was dropped, or a server began anew."""
        self._ready.clear()

    async def drop_all(self) -> None:
        """Drop every collection of the prefix, whichever model it is of."""
        async with self._making:
            self._ready.clear()
            for name in await self._list():
                if name.startswith(self._prefix):
                    await self._drop(name)

    async def _list(self) -> list[str]:
        names: list[str] = await self._client.call(lambda client: client.list_collections())
        return names

    async def _drop(self, name: str) -> None:
        try:
            await self._client.call(lambda client: client.drop_collection(name))
        except CollectionGone:
            pass

    async def _make_ready(self, name: str) -> None:
        """Make the collection, its indexes, and load it, whatever of that was done before."""
        lite = self._client.is_lite
        dimension = int(name.removeprefix(self._of_model))

        async def work(client: Any) -> None:
            if not await client.has_collection(name):
                await _tolerant(
                    client.create_collection(
                        name, schema=_schema(client, dimension, lite), consistency_level="Strong"
                    )
                )
            if len(await client.list_indexes(name)) < len(_INDEXED):
                await _tolerant(client.create_index(name, _indexes(client, lite)))
            await client.load_collection(name)

        await self._client.call(work)
        self._ready.add(name)


_INDEXED = ("embedding", "sparse")


async def _tolerant(making: Any) -> None:
    """Let another worker have been quicker."""
    from pymilvus import MilvusException

    try:
        await making
    except MilvusException as error:
        if _ALREADY_THERE not in str(error):
            raise


def _schema(client: Any, dimension: int, lite: bool) -> Any:
    from pymilvus import DataType, Function, FunctionType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("pk", DataType.VARCHAR, max_length=_DIGEST_LENGTH, is_primary=True)
    # Lite spreads a collection over files by its partition key, and then reads all of them.
    schema.add_field(
        "scope", DataType.VARCHAR, max_length=_DIGEST_LENGTH, is_partition_key=not lite
    )
    schema.add_field("name", DataType.VARCHAR, max_length=_DIGEST_LENGTH)
    schema.add_field("attachment", DataType.VARCHAR, max_length=2048)
    schema.add_field("number", DataType.INT64)
    schema.add_field("words", DataType.VARCHAR, max_length=TEXT_BYTES, enable_analyzer=True)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=dimension)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(
        Function(
            name="bm25",
            function_type=FunctionType.BM25,
            input_field_names=["words"],
            output_field_names=["sparse"],
        )
    )
    return schema


def _indexes(client: Any, lite: bool) -> Any:
    indexes = client.prepare_index_params()
    indexes.add_index("embedding", index_type="FLAT" if lite else "AUTOINDEX", metric_type="COSINE")
    indexes.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    return indexes
