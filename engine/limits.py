"""The engine's bounds: plain values, set by the composition root (rule X5)."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes, times in seconds."""

    input_items: int = 2000
    tools: int = 512
    line_bytes: int = 16 * 2**20
    """One line, or the data of one event, of a model's stream."""
    response_bytes: int = 64 * 2**20
    """What one response may hold of model output."""
    context_bytes: int = 64 * 2**20
    """What a model turn may be sent of history and input."""
    error_bytes: int = 64 * 2**10
    """How much of a model server's error body is read."""
    answer_bytes: int = 64 * 2**20
    """A model server's answer that is not a stream."""
    open_after: float = 10.0
    """How long a stream waits for the model server's status before it starts on its own (rule R16)."""
    heartbeat: float = 5.0
    """Silence after which a comment is sent (rule R13)."""
    turn: float = 3600.0
    """One model turn from call to terminal event."""
    response: float = 7200.0
    """All turns and calls of one response, from the start of its run."""
    stream_retries: int = 1
    """How often a turn is asked for again that failed before its first delta."""
    background_retries: int = 2
    """How often a run in the background begins a turn anew whose stream failed later."""
    retry_wait: float = 1.0
    """How long it waits before the first of these; twice as long before each other."""
    save_wait: float = 30.0
    """How long a finished response waits for a store that is away (rule P2)."""
    lease: float = 30.0
    """How long an accepted response belongs to its worker without renewal."""
    detached: float = 300.0
    """How long a response runs on after its client has left (rule P3)."""
    log_bytes: int = 64 * 2**10
    """Events that are written to the log at once, without waiting for more."""
    log_interval: float = 0.2
    """How long events wait for more of them before they are written to the log."""
    cancel_poll: float = 0.5
    """How often a worker asks which of its running responses somebody wants to end."""
    cancel_wait: float = 5.0
    """How long a cancel waits for the response's end before it shows the response as it is."""
    keep: float | None = None
    """How long a stored response is kept; None is for ever."""
    conversation_wait: float = 60.0
    """How long a turn waits for those before it in its conversation."""
    turns: int = 32
    """Most model turns of one response."""
    tool_list: float = 15.0
    """How long a provider may take to tell its tools."""
    tool_call: float = 120.0
    """How long one call of an owned tool may take."""
    tool_calls: int = 64
    """Calls of owned tools that run at a time, over all responses of a worker."""
    response_tool_calls: int = 8
    """The same, of one response."""
    search_results: int = 10
    """Results of a file search whose declaration does not say how many."""
    search_bytes: int = 48 * 2**10
    """Text that a model is told of one file search."""
    file_bytes: int = 512 * 2**20
    """One file that is sent in one request."""
    part_bytes: int = 64 * 2**20
    """One part of an upload."""
    upload_bytes: int = 8 * 2**30
    """All parts of an upload."""
    input_file_bytes: int = 10 * 2**20
    """One file in a request that becomes text."""
    input_text_bytes: int = 10 * 2**20
    """The text of a document in a request."""
    input_files: int = 500
    """Files of all items of a request together."""
    input_seconds: float = 180.0
    """How long the reading of all of them may take."""
    upload_seconds: float = 3600.0
    """How long an upload may be added to."""
    buffer_bytes: int = 4 * 2**20
    """What is held for a client that reads slower than the model writes."""
