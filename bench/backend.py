"""A model server that costs almost nothing: prepared streams over a unix socket, optionally paced.

`python -m bench.backend --socket PATH --events N [--rate R] [--calls C]`: every POST gets the same
vLLM-shaped stream of N text deltas, R a second (0: as fast as the reader takes them). With C, one that does
not hold C outputs of tools yet gets a call of `noop` instead.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

import uvloop


def _event(kind: str, **fields: object) -> bytes:
    body = {"type": f"response.{kind}", **fields}
    return f"event: response.{kind}\ndata: {json.dumps(body)}\n\n".encode()


def stream(events: int) -> tuple[bytes, list[bytes], bytes]:
    """Return the events before the deltas, the deltas, and the events after them."""
    place = {"item_id": "msg_2e77237d10f94c74", "output_index": 0, "content_index": 0}
    item = {"id": place["item_id"], "type": "message", "role": "assistant", "content": []}
    response = {"id": "resp_1", "object": "response", "status": "in_progress", "output": []}
    words = [f" word{number}" for number in range(events)]
    head = (
        _event("created", response=response)
        + _event("in_progress", response=response)
        + _event("output_item.added", output_index=0, item={**item, "status": "in_progress"})
        + _event("content_part.added", **place, part={"type": "output_text", "text": ""})
    )
    deltas = [
        _event("output_text.delta", **place, delta=word, logprobs=[], sequence_number=number)
        for number, word in enumerate(words)
    ]
    text = "".join(words)
    part = {"type": "output_text", "text": text, "annotations": []}
    done = {**item, "status": "completed", "content": [part]}
    usage = {"input_tokens": 10, "output_tokens": events, "total_tokens": events + 10}
    tail = (
        _event("output_text.done", **place, text=text)
        + _event("output_item.done", output_index=0, item=done)
        + _event(
            "completed",
            response={**response, "status": "completed", "output": [done], "usage": usage},
        )
    )
    return head, deltas, tail


def call() -> bytes:
    """Return a stream that calls `noop` without arguments."""
    item = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "noop"}
    response = {"id": "resp_1", "object": "response", "status": "in_progress", "output": []}
    done = {**item, "arguments": "{}", "status": "completed"}
    place = {"item_id": "fc_1", "output_index": 0}
    usage = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}
    return (
        _event("created", response=response)
        + _event("in_progress", response=response)
        + _event("output_item.added", output_index=0, item={**done, "arguments": ""})
        + _event("function_call_arguments.delta", **place, delta="{}")
        + _event("function_call_arguments.done", **place, name="noop", arguments="{}")
        + _event("output_item.done", output_index=0, item=done)
        + _event(
            "completed",
            response={**response, "status": "completed", "output": [done], "usage": usage},
        )
    )


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


class _Server:
    def __init__(self, events: int, rate: float, calls: int) -> None:
        self._calls = calls
        self._call = _HEAD + _chunk(call()) + b"0\r\n\r\n"
        head, deltas, tail = stream(events)
        self._head = _HEAD + _chunk(head)
        self._deltas = [_chunk(delta) for delta in deltas]
        self._tail = _chunk(tail) + b"0\r\n\r\n"
        self._interval = 1 / rate if rate else 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await self._read_body(reader, head.lower())
                if body.count(b'"function_call_output"') < self._calls:
                    writer.write(self._call)
                else:
                    await self._answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _read_body(self, reader: asyncio.StreamReader, head: bytes) -> bytes:
        _, found, length = head.partition(b"content-length:")
        if found:
            return await reader.readexactly(int(length.split(b"\r\n", 1)[0]))
        body = b""
        while b"transfer-encoding: chunked" in head:
            size = int(await reader.readuntil(b"\r\n"), 16)
            body += await reader.readexactly(size + 2)
            if not size:
                break
        return body

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self._head)
        clock = asyncio.get_running_loop().time
        start = clock()
        for number, delta in enumerate(self._deltas):
            if self._interval:
                await asyncio.sleep(max(0.0, start + number * self._interval - clock()))
            writer.write(delta)
            await writer.drain()
        writer.write(self._tail)
        await writer.drain()


async def _main(socket: Path, events: int, rate: float, calls: int) -> None:
    serve = _Server(events, rate, calls).serve
    server = await asyncio.start_unix_server(serve, socket, backlog=4096)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--calls", type=int, default=0)
    given = parser.parse_args()
    uvloop.run(_main(given.socket, given.events, given.rate, given.calls))
