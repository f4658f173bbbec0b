"""`engine.work`: what is stored of a request so that another worker can run it again."""

from __future__ import annotations

import json

import msgspec
import pytest

from engine.api.json import read_object
from engine.api.request import parse_create
from engine.ids import ItemIds
from engine.limits import Limits
from engine.work import pack, unpack

BODY = {
    "model": "m",
    "input": "a secret of the input",
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
    "tool_choice": {"type": "function", "name": "f"},
    "parallel_tool_calls": False,
    "include": ["message.output_text.logprobs"],
    "temperature": 0.50,
    "chat_template_kwargs": {"enable_thinking": False},
    "background": True,
    "metadata": {"k": "v"},
}
HEADERS = {"x-request-id": "r", "traceparent": "t", "authorization": "Bearer secret", "x": "y"}


def test_a_request_comes_back_as_it_was_but_for_its_input() -> None:
    """P4: the second run asks the model for the same."""
    body = json.dumps(BODY).encode()
    ids = ItemIds("resp_1")
    request = parse_create(read_object(body), ids, Limits())
    work = unpack(pack(read_object(body), {}, ids.minted))
    assert work.request(Limits()) == msgspec.structs.replace(request, input=[])
    assert (work.minted, work.credentials) == (1, False)


def test_neither_input_nor_credentials_are_stored_in_it() -> None:
    """X4, P8: the input is stored once, credentials never."""
    packed = pack(read_object(json.dumps(BODY).encode()), HEADERS, 0)
    assert b"secret" not in packed
    work = unpack(packed)
    assert work.headers == {"x-request-id": "r", "traceparent": "t"}
    assert work.credentials


@pytest.mark.parametrize("stored", [b"", b"{}", b"x"])
def test_what_another_release_left_can_only_be_ended(stored: bytes) -> None:
    """P4: nothing is stuck because of it."""
    assert unpack(stored).credentials
