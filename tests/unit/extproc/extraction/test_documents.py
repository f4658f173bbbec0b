"""The port with its real child processes: errors, bounds, crashes, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import ExtractionFailed, ExtractionRefused
from engine.ports.extraction import Chunking
from extproc.extraction.chunking import Bound
from extproc.extraction.documents import Documents, open_extraction
from extproc.settings_extraction import Extraction
from tests.support import bombs
from tests.support.documents import KINDS, make, name_of
from tests.support.processes import alive, busy, children, descriptors, environment, memory, status
from tests.support.stack import eventually

MIB = 1 << 20
# What a worker may grow by over any document; a bomb is hundreds of MiB.
GROWTH = 48 * MIB
PARAGRAPHS = [f"Paragraph {number} says that café {number} is open." for number in range(60)]


async def pieces(data: bytes, size: int = 64 << 10) -> AsyncIterator[bytes]:
    """Yield data as an upload brings it."""
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.fixture(scope="module")
async def documents() -> AsyncIterator[Documents]:
    """Yield what reads documents, with the bounds of the settings but for their time."""
    async with open_extraction(Extraction(seconds=20.0)) as opened:
        yield opened


async def text(documents: Documents, data: bytes, name: str = "a", most: int = MIB) -> str:
    """Return the text of a document, within a deadline."""
    async with asyncio.timeout(90):
        return await documents.text(name, pieces(data), most=most)


async def refusal(documents: Documents, data: bytes, most: int = MIB) -> ExtractionRefused:
    """Return how a document is refused."""
    with pytest.raises(ExtractionRefused) as refused:
        await text(documents, data, most=most)
    return refused.value


@pytest.mark.parametrize("kind", KINDS)
async def test_every_format_is_read_in_the_child(documents: Documents, kind: str) -> None:
    """As a whole and in chunks, which are the same each time, from another process too."""
    data = make(kind, PARAGRAPHS)
    whole = await text(documents, data, name_of(kind))
    # Lines of a PDF are those of its pages.
    assert all(paragraph in whole.replace("\n", " ") for paragraph in PARAGRAPHS)
    first = await documents.chunks(name_of(kind), pieces(data), Chunking(100, 50))
    async with open_extraction(Extraction()) as others:
        assert first == await others.chunks(name_of(kind), pieces(data), Chunking(100, 50))
    assert len(first) > 3
    assert all(chunk.strip() and Bound(100).holds(chunk) for chunk in first)
    words = {word for chunk in first for word in chunk.split()}
    assert words == set(whole.split())


@pytest.mark.parametrize(
    ("bomb", "word"),
    [
        (bombs.zip_bomb, "unpacked"),
        (bombs.lying_zip_bomb, "damaged"),
        (bombs.nested_zip_bomb, "archive"),
        (bombs.many_entries, "50000 files"),
        (bombs.billion_laughs, "entities"),
        (bombs.quadratic_blowup, "entities"),
        (bombs.deep_xml, "damaged"),
        (bombs.many_pages, "10000 pages"),
        (bombs.endless_pages, "no text"),
        (bombs.endless_references, "no text"),
        (bombs.endless_forms, "memory"),
        (lambda: b"word " * (40 * MIB), "limit of"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_a_bomb_is_refused_and_costs_the_worker_nothing(
    documents: Documents, bomb: Callable[[], bytes], word: str
) -> None:
    """X5: a clear error, flat memory, and no process that goes on; the next document is read."""
    data = bomb()
    before = memory(os.getpid())
    error = await refusal(documents, data)
    assert memory(os.getpid()) - before < GROWTH
    assert word in error.message
    await eventually(lambda: not children(documents.reader.pid))
    assert await text(documents, b"next") == "next"


async def test_a_document_that_takes_too_long_is_refused() -> None:
    """X5: and what reads it is ended."""
    async with open_extraction(Extraction(seconds=1.0)) as documents, asyncio.timeout(90):
        with pytest.raises(ExtractionRefused, match="over 1 seconds of the processor") as refused:
            await documents.chunks("a", pieces(bombs.deep_html()), Chunking())
        assert refused.value.code == "invalid_file"
        await eventually(lambda: not children(documents.reader.pid))


async def test_a_busy_machine_is_not_the_documents_fault() -> None:
    """X5: its time is that of the processor; one that does not get it is read all the same."""
    async with open_extraction(Extraction(seconds=2.0)) as documents:
        data = pieces(bombs.deep_html(10_000))
        reading = asyncio.create_task(documents.chunks("a", data, Chunking()))
        await eventually(lambda: documents.reader.pid is not None)
        template = documents.reader.pid
        assert template is not None
        stopped = await _kill_a_reader(template, set(), signal.SIGSTOP)
        since = time.monotonic()
        await eventually(lambda: time.monotonic() - since > 2.5)
        for reader in stopped:
            os.kill(reader, signal.SIGCONT)
        assert [chunk for chunk in await reading] == ["deep"]


async def test_a_client_does_not_wait_for_a_busy_machine() -> None:
    """X5: a document that is not read in twice its time may be sent again."""
    async with open_extraction(Extraction(seconds=1.0)) as documents:
        reading = asyncio.create_task(text(documents, bombs.deep_html()))
        await eventually(lambda: documents.reader.pid is not None)
        template = documents.reader.pid
        assert template is not None
        await _kill_a_reader(template, set(), signal.SIGSTOP)
        with pytest.raises(ExtractionFailed, match="machine is busy") as failed:
            await reading
        assert failed.value.died
        await eventually(lambda: not children(documents.reader.pid))


async def test_vector_stores_do_not_take_the_turns_of_requests() -> None:
    """X5: however many of their documents wait; and who comes when all are taken is told so."""
    never, begun = asyncio.Event(), 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal begun
        begun += 1
        yield b"x"
        await never.wait()

    limits = Extraction(concurrency=1, request_concurrency=1, wait_seconds=0.2)
    async with open_extraction(limits) as documents:
        slow = [asyncio.create_task(documents.chunks("a", endless(), Chunking())) for _ in range(3)]
        assert await text(documents, b"one") == "one"
        taking = asyncio.create_task(documents.text("a", endless(), most=MIB))
        await eventually(lambda: begun == 2)
        with pytest.raises(ExtractionFailed, match="too many others") as failed:
            await text(documents, b"two")
        assert (failed.value.status, failed.value.retry_after) == (503, 1)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        assert await text(documents, b"two") == "two"
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)


async def test_a_document_over_the_bound_is_not_kept() -> None:
    """X5: it is refused while it comes, and the rest is not asked for."""
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(MIB)

    async with open_extraction(Extraction(document_bytes=3 * MIB)) as documents:
        with pytest.raises(ExtractionRefused, match="over the limit of 3145728 bytes"):
            await documents.text("a", endless(), most=MIB)
        assert taken == 4
        assert documents.reader.pid is None


async def test_memory_is_bounded() -> None:
    """X5: a document that takes more says so."""
    page = b"<html>" + b"<p><b>x</b>" * 400_000
    async with open_extraction(Extraction(memory_bytes=64 * MIB)) as documents:
        error = await refusal(documents, page, most=16 * MIB)
        assert error.code == "invalid_file"
        assert "64 MiB" in error.message


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
async def test_any_bytes_are_read_or_refused(documents: Documents, data: st.DataObject) -> None:
    """X5: random bytes behind any beginning, and documents of which a few bytes are others."""
    kind = data.draw(st.sampled_from(KINDS))
    scrambled = bombs.scrambled(kind, data.draw(st.integers(0, 1 << 32)))
    heads = st.sampled_from([b"", b"%PDF-1.7\n", b"PK\x03\x04", b"\xff\xfe", b"<html>"])
    document = data.draw(
        st.just(scrambled) | st.builds(bytes.__add__, heads, st.binary(max_size=999))
    )
    try:
        found = await text(documents, document, data.draw(st.sampled_from([name_of(kind), "x"])))
    except ExtractionRefused as error:
        found = error.message
    assert found.strip()
    assert "\0" not in found


async def test_the_template_killed_in_mid_document_is_replaced() -> None:
    """The document is begun again; whoever waits notices nothing."""
    async with open_extraction(Extraction(seconds=60.0)) as documents:
        assert await text(documents, b"one") == "one"
        reading = asyncio.create_task(text(documents, bombs.deep_html(25_000)))
        template = documents.reader.pid
        assert template is not None
        await eventually(lambda: bool(children(template)))
        readers = children(template)
        os.kill(template, signal.SIGKILL)
        assert await reading == "deep"
        await eventually(lambda: not any(map(alive, readers)))
        assert documents.reader.pid != template
        assert await text(documents, b"two") == "two"


async def test_a_reader_killed_in_mid_document_is_replaced_once() -> None:
    """A victim is read again; of two that are killed nobody knows why; two that crash are the document's."""
    async with open_extraction(Extraction(seconds=60.0)) as documents:
        assert await text(documents, b"one") == "one"
        template = documents.reader.pid
        assert template is not None
        reading = asyncio.create_task(text(documents, bombs.deep_html(25_000)))
        await _kill_a_reader(template, set())
        assert await reading == "deep"
        await eventually(lambda: not children(template))
        reading = asyncio.create_task(text(documents, bombs.deep_html(25_000)))
        await _kill_a_reader(template, await _kill_a_reader(template, set()))
        with pytest.raises(ExtractionFailed, match="was killed twice") as failed:
            await reading
        assert failed.value.died
        reading = asyncio.create_task(text(documents, bombs.deep_html(25_000)))
        crash = signal.SIGSEGV
        await _kill_a_reader(template, await _kill_a_reader(template, set(), crash), crash)
        with pytest.raises(ExtractionRefused, match="crashed twice"):
            await reading
        assert documents.reader.pid == template


async def test_a_worker_that_leaves_takes_its_reader_with_it() -> None:
    """A cancelled request, and the end of all: no process, descriptor or file is left."""
    before = descriptors(os.getpid())
    async with open_extraction(Extraction()) as documents:
        await text(documents, b"one")
        reading = asyncio.create_task(text(documents, bombs.deep_html()))
        template = documents.reader.pid
        assert template is not None
        await eventually(lambda: bool(children(template)))
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await eventually(lambda: not children(template))
        reading = asyncio.create_task(text(documents, bombs.deep_html()))
        await eventually(lambda: bool(children(template)))
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    assert not alive(template)
    assert descriptors(os.getpid()) == before


async def test_the_children_see_nothing_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """X4: no environment, no descriptors but their own, and a user without rights where we are root."""
    monkeypatch.setenv("HOLDFAST_SECRET_OF_THE_TEST", "s3cret")
    async with open_extraction(Extraction()) as documents:
        reading = asyncio.create_task(text(documents, bombs.deep_html()))
        await eventually(lambda: documents.reader.pid is not None)
        template = documents.reader.pid
        assert template is not None
        await eventually(lambda: bool(children(template)))
        assert b"s3cret" not in environment(template)
        [reader] = children(template)
        await eventually(lambda: "NoNewPrivs:\t1" in status(reader))
        if os.geteuid() == 0:
            assert "Uid:\t65534\t65534\t65534" in status(reader)
            # The three standard ones, the document and its answers.
            assert descriptors(reader) <= 5
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_documents_are_read_a_few_at_a_time() -> None:
    """X5: others wait, and all are read."""
    async with open_extraction(Extraction(request_concurrency=2)) as documents:
        await text(documents, b"one")
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, len(children(documents.reader.pid)))
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        page = make("docx", PARAGRAPHS * 5)
        found = await asyncio.gather(*(text(documents, page) for _ in range(12)))
        watching.cancel()
        assert len(set(found)) == 1
        # One that is done may not be reaped yet.
        assert most <= 4


async def _kill_a_reader(
    template: int, killed: set[int], how: signal.Signals = signal.SIGKILL
) -> set[int]:
    """Kill the next process that reads, once it does; returns all that were killed."""
    await eventually(lambda: any(map(busy, children(template) - killed)))
    for reader in (readers := children(template) - killed):
        os.kill(reader, how)
    return killed | readers
