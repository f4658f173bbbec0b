"""A download is handed over: ext_proc tells whose it is, and Envoy fetches it from the worker by HTTP.

ext_proc has no back-pressure towards a client: what is written to it waits in Envoy's memory until the client
has read it. An ordinary cluster has (rule E6, docs/adr/0017). So that each way of telling whose a request is
holds here too, it is still ext_proc that asks, and it says the answer in a header that no client can send:
Envoy strips what begins with x-holdfast- from every request.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

from engine.errors import Unauthenticated
from extproc.messages import header_values, pass_on, set_header
from extproc.pb.ext_proc_pb2 import ProcessingRequest, ProcessingResponse

_TENANT = "x-holdfast-tenant"


def hand_over(tenant: str) -> ProcessingResponse:
    """Return the answer that lets a request go on to the workers' HTTP, as this tenant's."""
    answer = pass_on("request_headers")
    # A tenant may be any text, a header's value may not.
    mutation = answer.request_headers.response.header_mutation
    set_header(mutation.set_headers.add(), _TENANT, quote(tenant, safe=""))
    return answer


def handed_over(first: ProcessingRequest) -> str:
    """Return the tenant of a request that was handed over; raises Unauthenticated."""
    values = header_values(first.request_headers, _TENANT)
    if len(values) != 1 or not values[0]:
        raise Unauthenticated("The request was not handed over.")
    return unquote(values[0].decode("ascii", "replace"), errors="strict")
