"""What can go wrong, in the API's words.

Every error that a client may see is an `EngineError`; its class fixes the HTTP status, the `type` and
the default `code` of the body (rule R15), so that no adapter has to choose.

    EngineError
      InvalidRequest          400  invalid_request_error
        UnknownPreviousResponse  400  previous_response_not_found
        TargetRefused         400  target_refused
        SealingUnavailable    400  sealing_not_configured
        RetrievalUnavailable  400  retrieval_not_configured
      Unauthenticated         401  invalid_request_error
      NotFound                404  invalid_request_error
      MethodNotAllowed        405  invalid_request_error
      Conflict                409  invalid_request_error
        AlreadyAccepted       409  idempotency_key_reused
        AlreadyAnswered       409  approval_already_answered
        ConversationMoved     409  conversation_locked
      TooSlow                 408  invalid_request_error
      TooLarge                413  invalid_request_error
      UnsupportedMedia        415  invalid_request_error
      RangeRefused            416  invalid_request_error
      UpstreamRefused         4xx of the model server, rewritten
      UpstreamFailed          502  server_error, or the model server's own 5xx
      Stopped                 503  server_error
      WorkerLost              500  server_error
      ToolsUnavailable        424  external_connector_error
      StorageUnavailable      503  server_error
        StorageFull           507  storage_full
        IndexUnavailable      503  vector_index_unavailable
      SearchTimedOut          503  search_timeout
      EmbeddingFailed         502  embedding_failed
      ExtractionRefused       400  unsupported_file or invalid_file
      ExtractionFailed        503  server_error
      LeaseLost               500  server_error   (another worker owns the response)
"""

from __future__ import annotations

from typing import ClassVar


class EngineError(Exception):
    """An error with a place in the API: `status`, `type`, `code`, `param`, `message`."""

    status: int = 500
    type: str = "server_error"
    default_code: ClassVar[str | None] = None
    retry_after: int | None = None
    """Seconds for a `Retry-After` header, where trying again can help."""
    repeatable: bool = True
    """False where trying again would do again what was done: a tool was run (rule R13)."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code if code is not None else self.default_code

    @property
    def kind(self) -> str:
        """What a log may say of it: messages repeat what clients and servers have sent (rule P5)."""
        return f"{type(self).__name__} ({self.status} {self.code})"


class InvalidRequest(EngineError):
    """The request asks for something that is malformed or that we cannot honour (rule H1)."""

    status = 400
    type = "invalid_request_error"


class UnknownPreviousResponse(InvalidRequest):
    """`previous_response_id` names no response of this tenant (rule M3)."""

    default_code = "previous_response_not_found"

    def __init__(self, response_id: str) -> None:
        super().__init__(
            f"Previous response with id '{response_id}' not found.", param="previous_response_id"
        )


class RetrievalUnavailable(InvalidRequest):
    """The request needs vectors, and the gateway has nothing to make or to keep them with (rule H1)."""

    default_code = "retrieval_not_configured"


class Unauthenticated(EngineError):
    """The request does not prove whose it is (rule X2)."""

    status = 401
    type = "invalid_request_error"
    default_code = "missing_identity"


class TargetRefused(InvalidRequest):
    """The request names a URL that the gateway must not reach; nothing was sent to it (rule X3)."""

    default_code = "target_refused"


class SealingUnavailable(InvalidRequest):
    """The request brings secrets to keep, and there is no key to seal them with (rules H1, X4)."""

    default_code = "sealing_not_configured"


class NotFound(EngineError):
    """The object named by the path does not exist for this tenant (rule X1)."""

    status = 404
    type = "invalid_request_error"
    default_code = "not_found"


class MethodNotAllowed(EngineError):
    """The path exists, the method does not; `allowed` are those that do."""

    status = 405
    type = "invalid_request_error"
    default_code = "method_not_allowed"

    def __init__(self, message: str, allowed: list[str]) -> None:
        super().__init__(message)
        self.allowed = allowed


class Conflict(EngineError):
    """The object is in a state in which this cannot be done."""

    status = 409
    type = "invalid_request_error"
    default_code = "conflict"


class AlreadyAccepted(Conflict):
    """The Idempotency-Key is that of `response_id`, whose request had `digest`."""

    default_code = "idempotency_key_reused"

    def __init__(self, response_id: str, digest: bytes) -> None:
        super().__init__("This Idempotency-Key was used for another request.")
        self.response_id = response_id
        self.digest = digest


class AlreadyAnswered(Conflict):
    """Another response took the answer to a request for consent (rule T6); `param` is the answer's place."""

    default_code = "approval_already_answered"

    def __init__(self, request_id: str, param: str) -> None:
        super().__init__(
            f"The approval request '{request_id}' was answered already; it can be answered once.",
            param=f"{param}.approval_request_id",
        )


class ConversationMoved(Conflict):
    """Somebody else's turn, or items, came to the conversation first; or it is gone (rule M7)."""

    default_code = "conversation_locked"
    retry_after = 1

    def __init__(self, conversation_id: str) -> None:
        super().__init__(
            f"Conversation '{conversation_id}' is in use: another response of it is not finished. Turns of "
            "one conversation are made one after the other; please try again later.",
            param="conversation",
        )


class TooSlow(EngineError):
    """The client stopped sending in the middle of its request."""

    status = 408
    type = "invalid_request_error"
    default_code = "request_timeout"


class TooLarge(EngineError):
    """A body, before or after decoding, is over the limit (rule X5)."""

    status = 413
    type = "invalid_request_error"
    default_code = "request_too_large"


class UnsupportedMedia(EngineError):
    """A content type or content encoding that we cannot read."""

    status = 415
    type = "invalid_request_error"
    default_code = "unsupported_media_type"


class RangeRefused(EngineError):
    """The range of a file that is asked for lies behind its end; `size` is the file's, in bytes."""

    status = 416
    type = "invalid_request_error"
    default_code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"The file has {size} bytes; the range asks for none of them.")
        self.size = size


class UpstreamRefused(EngineError):
    """The model server answered with a 4xx; its status becomes ours, its body is rewritten."""

    type = "invalid_request_error"

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message, param=param, code=code)
        self.status = status
        self.retry_after = retry_after
        if status == 429:
            self.type = "too_many_requests"


class UpstreamFailed(EngineError):
    """The model server could not be reached, broke off, or answered with a 5xx (then `status` is its)."""

    default_code = "server_error"

    def __init__(
        self,
        message: str,
        *,
        status: int = 502,
        retry_after: int | None = None,
        passing: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.passing = passing
        """True where the same request may well succeed when it is sent again."""


class ToolsUnavailable(EngineError):
    """The tools that the request declares could not be listed; the message is for the client."""

    status = 424
    type = "external_connector_error"
    default_code = "tools_unavailable"


class Stopped(EngineError):
    """The worker was told to stop before the response was done."""

    status = 503
    default_code = "server_error"
    retry_after = 1

    def __init__(self) -> None:
        super().__init__("The gateway was stopped before the response was done.")


class WorkerLost(EngineError):
    """The worker that ran the response is gone (rule P4)."""

    default_code = "server_error"

    def __init__(self) -> None:
        super().__init__("The gateway's worker that ran this response died before it was done.")


class StorageUnavailable(EngineError):
    """The store cannot be reached or did not answer in time; nothing was acknowledged."""

    status = 503
    default_code = "storage_unavailable"

    retry_after = 1


class StorageFull(StorageUnavailable):
    """Where files are kept there is no room for this one; others can be read."""

    status = 507
    default_code = "storage_full"
    retry_after = 30


class IndexUnavailable(StorageUnavailable):
    """The vector index cannot be reached or did not answer in time."""

    default_code = "vector_index_unavailable"


class SearchTimedOut(EngineError):
    """A search of vector stores took longer than it may; trying again can help."""

    status = 503
    default_code = "search_timeout"
    retry_after = 1

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The search took longer than {seconds:g} seconds.")


class EmbeddingFailed(EngineError):
    """The embedding model could not be reached, or refused.

    `passing`: the same may work in a moment. `refused`: it is the text that is refused, so that the same will
    not work later either.
    """

    status = 502
    default_code = "embedding_failed"

    def __init__(self, message: str, *, passing: bool = False, refused: bool = False) -> None:
        super().__init__(message)
        self.passing = passing
        self.refused = refused


class ExtractionRefused(InvalidRequest):
    """A document that cannot be read: of a kind that is not known, broken, or beyond a bound (rule X5)."""

    default_code = "invalid_file"


class ExtractionFailed(EngineError):
    """What reads documents could not do it now; the same may work later.

    `died`: it was killed, or did not come to an end, with this document; nobody knows whether because of it.
    """

    status = 503
    default_code = "extraction_failed"
    retry_after = 1

    def __init__(self, message: str, *, param: str | None = None, died: bool = False) -> None:
        super().__init__(message, param=param)
        self.died = died


class LeaseLost(EngineError):
    """The response belongs to another worker, or was already finished: this write was refused."""

    default_code = "lease_lost"
