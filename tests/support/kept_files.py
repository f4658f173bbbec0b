"""Files of a rig's tenant, as an upload would have left them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from engine.ports import NewFile
from tests.support.engine_rig import CALLER, Rig


async def kept(
    rig: Rig, data: bytes, name: str = "a.txt", tenant: str = CALLER.tenant, as_id: str = ""
) -> str:
    """Store a file and return its id, `file-<name>` unless another is wanted."""

    async def pieces() -> AsyncIterator[bytes]:
        yield data

    new = NewFile(id=as_id or f"file-{name}", purpose="user_data", filename=name)
    blob = await rig.keeping.keep(tenant, pieces(), most=1 << 30, what="")
    assert await rig.store.add_file(tenant, new, blob) is not None
    return new.id
