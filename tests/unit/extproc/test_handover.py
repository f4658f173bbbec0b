"""Downloads that are handed over to the workers' HTTP."""

from __future__ import annotations

import pytest

from engine.errors import Unauthenticated
from extproc.handover import hand_over, handed_over
from extproc.messages import request_head
from extproc.pb.ext_proc_pb2 import ProcessingRequest


def carrying(*values: bytes) -> ProcessingRequest:
    headers = [(b"x-holdfast-tenant", value) for value in values]
    return request_head("GET", "/v1/files/f/content", headers, ended=True)


@pytest.mark.parametrize("tenant", ["default", "a, b", " ä\r\n☃%41 ", "x" * 512])
def test_a_tenant_arrives_as_it_was(tenant: str) -> None:
    """X2: whatever text it is, in a header that holds nothing but ASCII."""
    [option] = hand_over(tenant).request_headers.response.header_mutation.set_headers
    assert option.header.raw_value.isascii()
    assert b" " not in option.header.raw_value
    assert handed_over(carrying(option.header.raw_value)) == tenant


@pytest.mark.parametrize("values", [[], [b""], [b"a", b"b"]])
def test_what_was_not_handed_over_is_nobodys(values: list[bytes]) -> None:
    """X2: there is no default."""
    with pytest.raises(Unauthenticated):
        handed_over(carrying(*values))
