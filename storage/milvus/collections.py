"""Collections of the index: one for each embedding model and size of its vectors, made when it is needed.

The name of a collection says what is in it, so no worker has to ask another. Making one can be repeated, and
several may do it at once.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from storage.milvus.client import CollectionGone, MilvusClient
from storage.milvus.filters import MODEL_DIGEST_LENGTH, model_digest

_DIGEST_LENGTH = 32
TEXT_BYTES = 65_535
"""Longest VARCHAR of Milvus."""

_ALREADY_THERE = "already exist"


class Collections:
    """The collections of one model among all of a prefix.

    Only the making of one is waited for in turn; a caller bounds that wait (`MilvusClient.deadline`).
    """

    def __init__(self, client: MilvusClient, prefix: str, model: str) -> None:
        self._client = client
        self._of_model = f"{prefix}_{model_digest(model)}_"
        # The whole of a name: `holdfast_b_…` is of another prefix than `holdfast`.
        self._of_prefix = re.compile(rf"{prefix}_[0-9a-f]{{{MODEL_DIGEST_LENGTH}}}_[0-9]+")
        self._ready: set[str] = set()
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
        return await self._found(self._of_model)

    async def of_all_models(self) -> list[str]:
        """Return the collections of the prefix, whichever model they are of; all can be asked."""
        return await self._found("")

    async def _found(self, begin: str) -> list[str]:
        names = [name for name in await self._list() if name.startswith(begin)]
        for name in names:
            await self._provide(name, make=False)
        return names

    async def provide(self, dimension: int) -> str:
        """Return the collection for vectors of so many numbers, made if there is none."""
        name = self.name(dimension)
        await self._provide(name, make=True)
        return name

    def forget(self) -> None:
        """Look again: a collection was dropped, or a server began anew."""
        self._ready.clear()

    async def drop_all(self) -> None:
        """Drop every collection of the prefix, whichever model it is of."""
        for name in await self._list():
            async with self._client.deadline(), self._making:
                self._ready.discard(name)
                await self._drop(name)

    async def _list(self) -> list[str]:
        names: list[str] = await self._client.call(lambda client: client.list_collections())
        return sorted(name for name in names if self._of_prefix.fullmatch(name))

    async def _provide(self, name: str, *, make: bool) -> None:
        if name in self._ready:
            return
        async with self._making:
            if name not in self._ready:
                await self._make_ready(name, make=make)

    async def _drop(self, name: str) -> None:
        try:
            await self._client.call(lambda client: client.drop_collection(name))
        except CollectionGone:
            pass

    async def _make_ready(self, name: str, *, make: bool) -> None:
        """Make the collection, its indexes, and load it, whatever of that was done before.

        Without `make`, raises CollectionGone where there is none: it was dropped since it was listed.
        """
        lite = self._client.is_lite
        dimension = int(name.rpartition("_")[2])

        async def work(client: Any) -> None:
            if not await client.has_collection(name):
                if not make:
                    raise CollectionGone
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
