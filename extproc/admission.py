"""What every adapter does with a request before the engine sees it.

It learns whose the request is before it looks at anything else of it, checks the head, and decodes the body.
The one place where a Caller is made, and the reason why a request that is refused gets the same bytes
through Envoy and without it (rules R15, X2, X4, X5).
"""

from __future__ import annotations

from engine.api import json
from engine.api.headers import IDEMPOTENCY_KEY, ON_DISCONNECT
from engine.errors import InvalidRequest, TooLarge, TooSlow, UnsupportedMedia
from engine.intake import Caller
from extproc import messages
from extproc.encodings import decode
from extproc.identity import Identify, nobody_in_particular
from extproc.messages import Head
from extproc.outbound.names import look_up_for

# Carried on to the model server, so that its log and traces can be joined with ours.
_FORWARDED = ("x-request-id", "traceparent", "tracestate")


class Admission:
    """The bounds of a request: `body_limit` in bytes, before and after decoding.

    `body_silence` is how many seconds a client may pause within its body. `identify` tells whose a request
    is, from what Envoy says of it or would say; it is to be asked first.
    """

    def __init__(
        self,
        *,
        body_limit: int,
        forward_authorization: bool,
        body_silence: float = 60.0,
        identify: Identify = nobody_in_particular,
    ) -> None:
        self.identify = identify
        self.body_silence = body_silence
        self._body_limit = body_limit
        self._forwarded = (*_FORWARDED, "authorization") if forward_authorization else _FORWARDED

    def caller(self, tenant: str, head: Head) -> Caller:
        """Return whose request it is, which of its headers the model's turns carry, and which are for us.

        Names that the request has looked up count as its tenant's.
        """
        look_up_for(tenant)
        forwarded = {name: head.headers[name] for name in self._forwarded if name in head.headers}
        return Caller(
            tenant,
            forwarded,
            on_disconnect=head.headers.get(ON_DISCONNECT),
            idempotency_key=head.headers.get(IDEMPOTENCY_KEY),
            # A condition is answered by the whole, which is always right.
            byte_range=None if "if-range" in head.headers else head.headers.get("range"),
        )

    def check_head(self, head: Head) -> None:
        """Refuse what can be refused before a byte of the body is read.

        Raises UnsupportedMedia, InvalidRequest (there is no body), TooLarge.
        """
        _check_media_type(head)
        if head.ended:
            raise InvalidRequest("The request has no body.", code="invalid_json")
        length = head.headers.get("content-length", "")
        if length.isascii() and length.isdigit():
            self.check_size(int(length))

    def check_size(self, size: int) -> None:
        """Refuse a body of which so many bytes have come, or are announced; raises TooLarge."""
        if size > self._body_limit:
            raise TooLarge(f"The body is larger than {self._body_limit} bytes.")

    def too_slow(self) -> TooSlow:
        """Return the error for a client that paused for longer than `body_silence`."""
        return TooSlow(f"The request's body stopped for more than {self.body_silence:g} seconds.")

    def decoded(self, head: Head, body: bytes) -> bytes:
        """Return the body without its content encodings, of no more values than may be made of it.

        Raises TooLarge, UnsupportedMedia, InvalidRequest.
        """
        encoding = head.headers.get("content-encoding", "")
        plain = decode(body, encoding, self._body_limit) if encoding else body
        json.check_values(plain)
        return plain


def _check_media_type(head: Head) -> None:
    media_type = head.headers.get("content-type", messages.JSON).partition(";")[0].strip().lower()
    if media_type != messages.JSON:
        raise UnsupportedMedia(f"Content type '{media_type}' cannot be read; send {messages.JSON}.")
