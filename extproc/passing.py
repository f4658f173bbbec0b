"""What is not ours passes: every message of a stream is answered so that nothing changes (rule E1)."""

from __future__ import annotations

from extproc import messages
from extproc.pb.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from extproc.transport import MessageStream

_BODY_KINDS = ("request_body", "response_body")


async def pass_all(stream: MessageStream, first: ProcessingRequest) -> None:
    """Let every message of a stream that is not ours pass unchanged, to its end."""
    message: ProcessingRequest | None = first
    while message is not None:
        kind = message.WhichOneof("request")
        if kind is not None:
            await stream.write(_echo(message, kind))
        message = await stream.read()


def _echo(message: ProcessingRequest, kind: str) -> ProcessingResponse:
    answer = messages.pass_on(kind)
    if kind in _BODY_KINDS:
        body = getattr(message, kind)
        streamed = getattr(answer, kind).response.body_mutation.streamed_response
        streamed.body = body.body
        streamed.end_of_stream = body.end_of_stream
    return answer
