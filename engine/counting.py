"""How many tokens the model is sent: counted by its server (vLLM's `/tokenize`), with its own template.

Other servers count nothing that could be asked for. Where the operator allows it, an estimate stands in.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from engine.api.json import encode
from engine.api.request import CreateRequest
from engine.errors import InvalidRequest, UpstreamFailed
from engine.ports import ModelClient
from engine.upstream.dialect import ChatDialect

PATH = "/tokenize"
# A count comes with all the tokens.
_MOST_READ = 32 << 20
_SECONDS = 10.0
# A token of prose or code has about four bytes, a picture takes some hundred tokens or a thousand.
_TOKEN_BYTES = 4
_IMAGE_TOKENS = 1000
_IMAGE = re.compile(rb'"data:image/[^"]*"')


class Count(msgspec.Struct, frozen=True):
    """Tokens of a prompt; `max_model_len` is the model's context, 0 where it is not known."""

    count: int
    max_model_len: int = 0
    estimated: bool = False


class _Messages(msgspec.Struct, omit_defaults=True):
    model: str
    messages: msgspec.Raw
    tools: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_read_messages = msgspec.json.Decoder(_Messages).decode
_read_count = msgspec.json.Decoder(Count).decode


class Counting:
    """Counts tokens; `estimates`: by their bytes, where the server does not."""

    def __init__(self, model: ModelClient, *, estimates: bool = False) -> None:
        self._model = model
        self._estimates = estimates

    async def counted(
        self,
        request: CreateRequest,
        items: Iterable[bytes],
        headers: Mapping[str, str],
        owned: Sequence[dict[str, object]] = (),
    ) -> Count | None:
        """Return how many tokens a turn with these replayed items has; None where nobody can say.

        `owned` are functions that the gateway runs. Raises UpstreamFailed.
        """
        whole = ChatDialect().encode(request, [*request.preface, *items], owned)
        body = encode(_read_messages(whole))
        try:
            async with asyncio.timeout(_SECONDS):
                return _read_count(await self._told(body, headers))
        except TimeoutError:
            raise UpstreamFailed("The model server took too long to count tokens.") from None
        except msgspec.DecodeError:
            return _estimate(body) if self._estimates else None

    async def _told(self, body: bytes, headers: Mapping[str, str]) -> bytes:
        """Return what the server says; nothing where it refuses."""
        answer = await self._model.call(PATH, body, headers)
        try:
            return await answer.read(_MOST_READ) if answer.status == 200 else b""
        finally:
            answer.close()


def _estimate(body: bytes) -> Count:
    text, images = _IMAGE.subn(b"", body)
    return Count(len(text) // _TOKEN_BYTES + images * _IMAGE_TOKENS, estimated=True)


def cannot_count(param: str | None, why: str) -> InvalidRequest:
    """Return the error for what needs a count where there is none."""
    return InvalidRequest(
        f"{why} needs a model server that counts the tokens of messages (POST {PATH}, as vLLM does), and "
        "this one does not.",
        param=param,
        code="unsupported_value",
    )
