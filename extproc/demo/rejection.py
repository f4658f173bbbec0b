"""The demo model's errors in vLLM's body: `code` is a number, `type` varies with the cause."""

from __future__ import annotations

from typing import Any

# The newest releases repeat the offending input this often; older ones did per union member.
REPEATED = 10


class Rejected(Exception):
    """The request gets this error instead of an answer."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "BadRequestError",
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(message, status=status, kind=kind, param=param)


def error_body(
    message: str, *, status: int = 400, kind: str = "BadRequestError", param: str | None = None
) -> dict[str, Any]:
    """The JSON of an error."""
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def invalid(field: str, why: str, given: object) -> Rejected:
    """One field failed validation."""
    message = (
        f"1 validation error:\n  {{'loc': ('body', '{field}'), 'msg': '{why}', 'input': {given!r}}}"
    )
    return Rejected(message, kind="Bad Request", param=field)


def matches_nothing(field: str, given: object) -> Rejected:
    """The value fits no member of a union: the error names each member and repeats the input."""
    line = f"  {{'loc': ('body', '{field}'), 'msg': 'Input should be valid', 'input': {given!r}}}"
    return Rejected(
        "\n".join(["239 validation errors:", *[line] * REPEATED]), kind="Bad Request", param=field
    )


def unknown_model(name: str) -> Rejected:
    """A real server's 404; the demo itself takes any name."""
    return Rejected(
        f"The model `{name}` does not exist.", status=404, kind="NotFoundError", param="model"
    )


def unknown_response(response_id: str) -> Rejected:
    """What every id gets while vLLM's response store is off, as it is by default."""
    message = f"Response with id '{response_id}' not found."
    return Rejected(message, status=404, kind="invalid_request_error", param="response_id")


def crashed(message: str) -> Rejected:
    """What a request gets that passed validation and then broke vLLM's own code."""
    return Rejected(message, status=500, kind="InternalServerError")
