"""A download is handed over: ext_proc tells whose it is, and Envoy fetches it from a worker by HTTP.

ext_proc has no back-pressure towards a client: what is written to it waits in Envoy's memory until the client
has read it. An ordinary cluster has (rule E6, docs/adr/0017). So that each way of telling whose a request is
holds here too, it is still ext_proc that asks, and it says the answer in a header, in the place of whatever a
client has put there.

Where there are sealing keys, a ticket goes with it: made for this tenant and this file, good for minutes. A
request that came past ext_proc has none, so that no mistake in somebody's routes lets a client say who it is
(rule X2, docs/adr/0027).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from urllib.parse import quote, unquote

from engine.errors import Unauthenticated
from engine.ports.sealing import SealBroken, Sealing
from extproc import routes
from extproc.messages import header_values, pass_on, read_head, set_header
from extproc.pb.ext_proc_pb2 import ProcessingRequest, ProcessingResponse

_log = logging.getLogger(__name__)

_TENANT = "x-holdfast-tenant"
_TICKET = "x-holdfast-ticket"
# Another pod may read the ticket than made it, by a clock of its own.
_GOOD_FOR_SECONDS = 300.0


class Handover:
    """Hands requests over, and knows again those that were.

    `sealing` makes the tickets, with keys that all replicas have; without it a request is believed as it
    comes, which is for sockets that Envoy alone reaches. `now` gives Unix time in seconds.
    """

    def __init__(
        self, sealing: Sealing | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self._sealing = sealing
        self._now = now

    def hand_over(self, tenant: str, file_id: str) -> ProcessingResponse:
        """Return the answer that lets a request go on to the workers' HTTP, as this tenant's."""
        answer = pass_on("request_headers")
        mutation = answer.request_headers.response.header_mutation
        # A tenant may be any text, a header's value may not.
        set_header(mutation.set_headers.add(), _TENANT, quote(tenant, safe=""))
        if self._sealing is not None:
            made = f"{self._now():.0f}".encode()
            ticket = self._sealing.seal(tenant, _purpose(file_id), made)
            set_header(mutation.set_headers.add(), _TICKET, ticket)
        return answer

    def identify(self, first: ProcessingRequest) -> str:
        """Return the tenant of a request that was handed over; raises Unauthenticated."""
        tenant = unquote(_the_one(first, _TENANT), errors="strict")
        if self._sealing is not None:
            self._check(self._sealing, tenant, first)
        return tenant

    def _check(self, sealing: Sealing, tenant: str, first: ProcessingRequest) -> None:
        head = read_head(first.request_headers)
        file_id = routes.find(head.method, head.target).id
        try:
            made = float(sealing.unseal(tenant, _purpose(file_id), _the_one(first, _TICKET)))
        except SealBroken as error:
            _log.warning("a download without a ticket that opens was refused: %s", error)
            raise _not_handed_over() from None
        age = self._now() - made
        if abs(age) > _GOOD_FOR_SECONDS:
            _log.warning("a download whose ticket is %.0f seconds old was refused", age)
            raise _not_handed_over()


def _purpose(file_id: str) -> str:
    return f"download of {file_id}"


def _the_one(first: ProcessingRequest, name: str) -> str:
    values = header_values(first.request_headers, name)
    if len(values) != 1 or not values[0]:
        raise _not_handed_over()
    return values[0].decode("ascii", "replace")


def _not_handed_over() -> Unauthenticated:
    return Unauthenticated("The request was not handed over.")
