"""Downloads that are handed over to the workers' HTTP."""

from __future__ import annotations

import logging

import pytest

from engine.errors import NotFound, Unauthenticated
from extproc.admission import Admission
from extproc.exchange import Exchanges
from extproc.handover import Handover
from extproc.messages import request_head
from extproc.pb.ext_proc_pb2 import HeaderValueOption, ProcessingRequest
from extproc.sealing import AesSealing
from tests.support.engine_rig import Rig
from tests.support.fake_envoy import FakeEnvoy, head
from tests.support.fake_model import FakeModel
from tests.support.riding import riding

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
FILE = "file-0123456789abcdef"
CONTENT = f"/v1/files/{FILE}/content"
SEALED = "x-holdfast-ticket"
TENANTS = ["default", "a, b", " ä\r\n☃%41 ", "x" * 512]
NOW = 1_750_000_000.0


def carrying(*headers: tuple[str, bytes], path: str = CONTENT) -> ProcessingRequest:
    given = [(name.encode(), value) for name, value in headers]
    return request_head("GET", path, given, ended=True)


def given_by(handover: Handover, tenant: str, file_id: str = FILE) -> dict[str, bytes]:
    """Return the headers of a request that is handed over."""
    answer = handover.hand_over(tenant, file_id)
    set_headers = answer.request_headers.response.header_mutation.set_headers
    return {option.header.key: option.header.raw_value for option in set_headers}


def sealing(*keys: bytes, now: float = NOW) -> Handover:
    return Handover(AesSealing(keys or [KEY]), lambda: now)


@pytest.mark.parametrize("handover", [Handover(), sealing()], ids=["believed", "with tickets"])
@pytest.mark.parametrize("tenant", TENANTS)
def test_a_tenant_arrives_as_it_was(handover: Handover, tenant: str) -> None:
    """X2: whatever text it is, in headers that hold nothing but ASCII."""
    headers = given_by(handover, tenant)
    assert all(value.isascii() and b" " not in value for value in headers.values())
    assert handover.identify(carrying(*headers.items())) == tenant


@pytest.mark.parametrize("values", [[], [b""], [b"a", b"b"]])
def test_what_was_not_handed_over_is_nobodys(values: list[bytes]) -> None:
    """X2: there is no default."""
    with pytest.raises(Unauthenticated):
        Handover().identify(carrying(*(("x-holdfast-tenant", value) for value in values)))


def test_a_request_that_came_past_ext_proc_is_nobodys() -> None:
    """X2: on a port a tenant is believed with a ticket alone, whatever else a client has written."""
    told = ("x-holdfast-tenant", b"victim")
    ticket = (SEALED, given_by(sealing(), "victim")[SEALED])
    assert sealing().identify(carrying(told, ticket)) == "victim"
    for headers in (
        [told],
        [told, (SEALED, b"")],
        [told, (SEALED, b"hf1.0.x")],
        [told, ("x-holdfast-ticket", "ä".encode())],
        [told, ticket, ticket],
        [told, told, ticket],
        [ticket],
    ):
        with pytest.raises(Unauthenticated):
            sealing().identify(carrying(*headers))


def test_a_ticket_is_for_one_tenant_one_file_and_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """X2: one that was seen somewhere opens nothing else; why is in the log, and not the ticket."""
    headers = given_by(sealing(), "mallory")
    ticket = (SEALED, headers[SEALED])
    mine = ("x-holdfast-tenant", b"mallory")
    with caplog.at_level(logging.WARNING):
        for reader, tenant, path in (
            (sealing(), b"victim", CONTENT),
            (sealing(), b"mallory", "/v1/files/file-x/content"),
            (sealing(now=NOW + 301), b"mallory", CONTENT),
            (sealing(now=NOW - 301), b"mallory", CONTENT),
            (sealing(OTHER_KEY), b"mallory", CONTENT),
        ):
            with pytest.raises(Unauthenticated):
                reader.identify(carrying(("x-holdfast-tenant", tenant), ticket, path=path))
    assert len(caplog.records) == 5
    assert headers[SEALED].decode() not in caplog.text
    assert sealing(now=NOW + 299).identify(carrying(mine, ticket)) == "mallory"
    with pytest.raises(NotFound):
        sealing().identify(carrying(mine, ticket, path="/v1/nothing"))


def test_keys_can_be_replaced_one_pod_at_a_time() -> None:
    """A new key is opened by all before it seals (docs/upgrade.md)."""
    for made_by, read_by in (((KEY,), (KEY, OTHER_KEY)), ((OTHER_KEY, KEY), (KEY, OTHER_KEY))):
        headers = given_by(sealing(*made_by), "t")
        assert sealing(*read_by).identify(carrying(*headers.items())) == "t"


async def test_what_a_client_says_of_itself_is_overwritten() -> None:
    """X2: both headers, so that nothing depends on an Envoy that removes them before."""
    rig = Rig(FakeModel())
    admission = Admission(
        body_limit=1000, forward_authorization=False, identify=lambda _first: "mallory"
    )
    exchanges = Exchanges(rig.endpoints, admission, riding(rig.model), handover=sealing())
    spoofed = {"x-holdfast-tenant": "victim", SEALED: "hf1.0.x"}
    envoy = FakeEnvoy(head("GET", CONTENT, spoofed, end=True))
    await exchanges.serve(envoy)

    [answer] = envoy.passed
    options = answer.request_headers.response.header_mutation.set_headers
    told = {option.header.key: option.header.raw_value for option in options}
    assert set(told) == set(spoofed)
    assert {option.append_action for option in options} == {
        HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    }
    assert sealing().identify(carrying(*told.items())) == "mallory"
