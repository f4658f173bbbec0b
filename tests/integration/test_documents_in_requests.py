"""`input_file` of documents with the official SDK, through Envoy and without it."""

from __future__ import annotations

import base64
import os
import signal
from typing import Any

import openai
import pytest

from tests.support import bombs
from tests.support.documents import make, name_of
from tests.support.fix_stack import BOTH_WAYS
from tests.support.processes import alive, children, command
from tests.support.replies import say, text
from tests.support.stack import Stack, eventually

PARAGRAPHS = ["The café opens at nine.", "It closes at five & is shut on Mondays."]


def the_file(**source: str) -> Any:
    """Return an input of one file."""
    return [{"role": "user", "content": [{"type": "input_file", **source}]}]


@BOTH_WAYS
@pytest.mark.parametrize("kind", ["pdf", "docx", "pptx", "xlsx", "utf16"])
async def test_a_model_reads_documents(stack: Stack, client: openai.AsyncOpenAI, kind: str) -> None:
    """M8: by id and by data the model is sent the same text, under the file's name."""
    model = stack.plays(say(text("ok")))
    data, name = make(kind, PARAGRAPHS), name_of(kind)
    kept = await client.files.create(file=(name, data), purpose="user_data")
    url = f"data:application/octet-stream;base64,{base64.b64encode(data).decode()}"
    sources: list[dict[str, str]] = [{"file_id": kept.id}, {"file_data": url, "filename": name}]
    answers = []
    for source in sources:
        answer = await client.responses.create(model=model, input=the_file(**source))
        assert answer.output_text == "ok"
        answers.append(answer.id)
    one, other = (asked.json["input"][0]["content"] for asked in stack.asked(model))
    assert one == other
    assert one.startswith(f"File: {name}\n\n")
    assert all(paragraph in one for paragraph in PARAGRAPHS)
    items = await client.responses.input_items.list(answers[1])
    shown: Any = items.data[0]
    assert shown.content[0].to_dict() == {"type": "input_file", **sources[1]}


@BOTH_WAYS
async def test_documents_that_cannot_be_read_are_refused(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """H1, X5: a 400 that names the file and its place, and says what is wrong; the model is not asked."""
    model = stack.plays(say(text("ok")))
    for data, code, word in (
        (bombs.scanned_pdf(), "unsupported_file", "no text layer"),
        (bombs.encrypted_pdf(), "unsupported_file", "password"),
        (bombs.zip_bomb(), "invalid_file", "limit is 200 times"),
        (bombs.billion_laughs(), "invalid_file", "entities"),
        (bombs.many_pages(), "invalid_file", "10000 pages; the limit is 5000"),
        (bombs.truncated("docx"), "invalid_file", "damaged"),
        (b"\x89PNG\r\n\x1a\n\0", "unsupported_file", "an image"),
    ):
        kept = await client.files.create(file=("a.docx", data), purpose="user_data")
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model=model, input=the_file(file_id=kept.id))
        assert (refused.value.code, refused.value.param) == (
            code,
            "input[0].content[0].file_id",
        )
        assert "'a.docx'" in refused.value.message
        assert word in refused.value.message
    assert stack.asked(model) == []


async def test_the_child_comes_with_the_first_document_and_goes_with_its_worker(
    own_stack: Stack,
) -> None:
    """Text needs none; a worker that is killed leaves none."""
    model = own_stack.plays(say(text("ok")), say(text("ok")))
    workers = [own_stack.worker(0), own_stack.worker(1)]

    def readers() -> set[int]:
        return {
            child
            for worker in workers
            for child in children(worker)
            if b"extproc.extraction" in command(child)
        }

    async with openai.AsyncOpenAI(base_url=f"{own_stack.url}/v1", api_key="x") as client:
        for kind, started in (("markdown", 0), ("docx", 1)):
            data = base64.b64encode(make(kind, PARAGRAPHS)).decode()
            await client.responses.create(model=model, input=the_file(file_data=data))
            assert len(readers()) == started
    [reader] = readers()
    [worker] = [worker for worker in workers if reader in children(worker)]
    os.kill(worker, signal.SIGKILL)
    await eventually(lambda: not alive(reader))
