"""The official SDK as a judge: its strict accumulator over bytes, without a server."""

from __future__ import annotations

from functools import cache

import httpx2
import openai
from openai.types.responses import ParsedResponse

_HEADERS = {"content-type": "text/event-stream; charset=utf-8"}


@cache
def _client() -> tuple[openai.OpenAI, dict[str, bytes]]:
    body: dict[str, bytes] = {}

    def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers=_HEADERS, content=body["raw"])

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    client = openai.OpenAI(
        api_key="none", base_url="http://gateway/v1", http_client=http, max_retries=0
    )
    return client, body


def accumulated(raw: bytes) -> ParsedResponse[None]:
    """Return the final response of `client.responses.stream()`; raises what the SDK raises (rule R14)."""
    client, body = _client()
    body["raw"] = raw
    with client.responses.stream(model="m", input="hi") as stream:
        for _ in stream:
            pass
        return stream.get_final_response()
