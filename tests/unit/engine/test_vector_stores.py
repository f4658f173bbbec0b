"""The operations on vector stores, their files and batches, and searches, over the memory store."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.errors import StorageUnavailable
from engine.intake import Caller
from engine.ports import Attached
from tests.support import replies
from tests.support.engine_rig import Rig
from tests.support.fake_model import FakeModel, frames_of
from tests.support.replies import text
from tests.support.store_rig import Clocked, StoreRig

HEX = "0" * 32


async def test_a_store_is_made_shown_changed_and_deleted() -> None:
    """With every field of the API; null empties what it names."""
    rig = StoreRig()
    made = await rig.made(
        name="Laws",
        description="of the land",
        metadata={"a": "b"},
        expires_after={"anchor": "last_active_at", "days": 7},
    )
    assert made == {
        "id": made["id"],
        "object": "vector_store",
        "created_at": made["created_at"],
        "name": "Laws",
        "description": "of the land",
        "usage_bytes": 0,
        "file_counts": {"in_progress": 0, "completed": 0, "cancelled": 0, "failed": 0, "total": 0},
        "status": "completed",
        "expires_after": {"anchor": "last_active_at", "days": 7},
        "expires_at": made["last_active_at"] + 7 * 86_400,
        "last_active_at": made["last_active_at"],
        "metadata": {"a": "b"},
    }
    path = f"/{made['id']}"
    assert await rig.got(path) == made
    changed = await rig.made(path, name="Law", metadata=None, expires_after=None)
    assert (changed["name"], changed["metadata"], changed["expires_at"]) == ("Law", {}, None)
    assert await rig.made(path) == changed
    deleted = await rig.got(path, "DELETE")
    assert deleted == {"id": made["id"], "object": "vector_store.deleted", "deleted": True}
    assert (await rig.refused("GET", path))["status"] == 404


async def test_stores_are_listed_in_pages() -> None:
    """H2: both cursors, both orders."""
    rig = StoreRig()
    ids = [(await rig.made(name=str(n)))["id"] for n in range(4)]
    page = await rig.got("?limit=2&order=asc")
    assert ([s["id"] for s in page["data"]], page["has_more"]) == (ids[:2], True)
    assert (page["first_id"], page["last_id"]) == (ids[0], ids[1])
    behind = await rig.got(f"?after={ids[1]}&order=asc")
    assert [s["id"] for s in behind["data"]] == ids[2:]
    before = await rig.got(f"?before={ids[2]}&order=asc")
    assert [s["id"] for s in before["data"]] == ids[:2]
    newest = await rig.got("")
    assert [s["id"] for s in newest["data"]] == ids[::-1]


async def test_a_file_is_attached_ingested_found_and_detached() -> None:
    """T8: while it is in progress the SDK is told when to ask again."""
    rig = StoreRig()
    store = (await rig.made())["id"]
    file_id = await rig.upload("the cat sat on the mat", "cats.txt")
    body = {"file_id": file_id, "attributes": {"kind": "cat", "n": 1, "old": False}}
    answer = await rig.ask("POST", f"/{store}/files", body)
    assert answer.headers == {"openai-poll-after-ms": "500"}
    assert (await rig.got(f"/{store}"))["status"] == "in_progress"
    async with rig.working():
        shown = await rig.ends(store, file_id)
    assert shown == {
        "id": file_id,
        "object": "vector_store.file",
        "created_at": shown["created_at"],
        "vector_store_id": store,
        "usage_bytes": shown["usage_bytes"],
        "status": "completed",
        "last_error": None,
        "attributes": {"kind": "cat", "n": 1, "old": False},
        "chunking_strategy": {
            "type": "static",
            "static": {"max_chunk_size_tokens": 800, "chunk_overlap_tokens": 400},
        },
    }
    assert shown["usage_bytes"] > 0
    assert (await rig.ask("GET", f"/{store}/files/{file_id}")).headers == {}
    content = await rig.got(f"/{store}/files/{file_id}/content")
    assert content["data"] == [{"type": "text", "text": "the cat sat on the mat"}]

    page = await rig.made(f"/{store}/search", query="where is the cat")
    [result] = page["data"]
    assert page == {
        "object": "vector_store.search_results.page",
        "search_query": ["where is the cat"],
        "data": [result],
        "has_more": False,
        "next_page": None,
    }
    assert (result["file_id"], result["filename"]) == (file_id, "cats.txt")
    assert result["attributes"] == {"kind": "cat", "n": 1, "old": False}
    assert result["content"] == [{"type": "text", "text": "the cat sat on the mat"}]
    assert 0 < result["score"] <= 1

    labelled = await rig.made(f"/{store}/files/{file_id}", attributes={"kind": "dog"})
    assert labelled["attributes"] == {"kind": "dog"}
    wanted = {"type": "eq", "key": "kind", "value": "cat"}
    assert await rig.found(store, "cat", filters=wanted) == []
    gone = await rig.got(f"/{store}/files/{file_id}", "DELETE")
    assert gone == {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}
    assert await rig.found(store, "cat") == []


async def test_a_store_begins_with_files_or_is_not_made() -> None:
    """H1: a file that nobody has is told where it is named, and nothing is left."""
    rig = StoreRig()
    file_id = await rig.upload("hello")
    strategy = {
        "type": "static",
        "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0},
    }
    made = await rig.made(file_ids=[file_id], chunking_strategy=strategy)
    assert made["file_counts"]["in_progress"] == 1
    [file] = (await rig.got(f"/{made['id']}/files"))["data"]
    assert file["chunking_strategy"] == strategy
    error = await rig.refused("POST", "", {"file_ids": [file_id, "file-x"]})
    assert (error["status"], error["param"], error["code"]) == (
        400, "file_ids[1]", "file_not_found",
    )  # fmt: skip
    assert len((await rig.got(""))["data"]) == 1


async def test_a_way_to_cut_files_is_taken_without_files() -> None:
    """H1: the SDK documents it as not applicable then, and clients send it with every store."""
    made = await StoreRig().made(chunking_strategy={"type": "auto"})
    assert made["file_counts"]["total"] == 0


async def test_a_batch_is_attached_counted_listed_and_cancelled() -> None:
    """Files of one batch, with options of their own or in common."""
    rig = StoreRig()
    store = (await rig.made())["id"]
    files = [await rig.upload(f"text {n}") for n in range(3)]
    each = [{"file_id": f, "attributes": {"n": n}} for n, f in enumerate(files[:2])]
    first = await rig.made(f"/{store}/file_batches", files=each)
    second = await rig.made(f"/{store}/file_batches", file_ids=files[2:], attributes={"n": 9})
    assert (first["status"], first["file_counts"]["in_progress"]) == ("in_progress", 2)
    assert second["object"] == "vector_store.files_batch"
    listed = await rig.got(f"/{store}/file_batches/{first['id']}/files?order=asc")
    assert [(f["id"], f["attributes"]) for f in listed["data"]] == [
        (files[0], {"n": 0}), (files[1], {"n": 1}),
    ]  # fmt: skip
    cancelled = await rig.made(f"/{store}/file_batches/{first['id']}/cancel")
    assert (cancelled["status"], cancelled["file_counts"]["cancelled"]) == ("cancelled", 2)
    async with rig.working():
        await rig.ends(store, files[2])
    done = await rig.got(f"/{store}/file_batches/{second['id']}")
    assert (done["status"], done["file_counts"]["completed"]) == ("completed", 1)
    stopped = await rig.got(f"/{store}/files?filter=cancelled")
    assert {f["id"] for f in stopped["data"]} == set(files[:2])


async def test_a_batch_all_of_whose_files_fail_has_failed() -> None:
    """And each file says why."""
    rig = StoreRig()
    store = (await rig.made())["id"]
    bad, worse = await rig.upload(b"\xff"), await rig.upload("x", "a.exe")
    batch = await rig.made(f"/{store}/file_batches", file_ids=[bad, worse])
    async with rig.working():
        errors = [(await rig.ends(store, each))["last_error"] for each in (bad, worse)]
    assert [error["code"] for error in errors] == ["invalid_file", "unsupported_file"]
    assert all(error["message"] for error in errors)
    assert (await rig.got(f"/{store}/file_batches/{batch['id']}"))["status"] == "failed"


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("", {"nom": "x"}, "nom"),
    ("", {"name": 1}, "name"),
    ("", {"name": "a\0"}, "name"),
    ("", {"metadata": {"a": 1}}, "metadata.a"),
    ("", {"expires_after": {"anchor": "created_at", "days": 1}}, "expires_after.anchor"),
    ("", {"expires_after": {"anchor": "last_active_at", "days": 0}}, "expires_after.days"),
    ("", {"expires_after": {"anchor": "last_active_at", "days": 366}}, "expires_after.days"),
    ("", {"expires_after": {"days": 1}}, "expires_after.anchor"),
    ("", {"file_ids": ["f"] * 2}, "file_ids[1]"),
    ("", {"file_ids": [str(n) for n in range(501)]}, "file_ids"),
    ("", {"chunking_strategy": {"type": "other"}}, "chunking_strategy.type"),
    ("/vs", {"file_ids": []}, "file_ids"),
    ("/vs/files", {}, "file_id"),
    ("/vs/files", {"file_id": "f", "chunking_strategy": {"type": "other"}}, "chunking_strategy.type"),
    ("/vs/files", {"file_id": "f", "chunking_strategy": {"type": "auto", "static": {}}},
     "chunking_strategy.static"),
    ("/vs/files", {"file_id": "f", "attributes": {"a": []}}, "attributes.a"),
    ("/vs/files/f", {}, "attributes"),
    ("/vs/file_batches", {}, "file_ids"),
    ("/vs/file_batches", {"file_ids": []}, "file_ids"),
    ("/vs/file_batches", {"file_ids": [str(n) for n in range(2001)]}, "file_ids"),
    ("/vs/file_batches", {"files": [{"file_id": "f"}], "file_ids": ["f"]}, "files"),
    ("/vs/file_batches", {"files": [{"file_id": "f"}], "attributes": {"a": 1}}, "attributes"),
    ("/vs/file_batches", {"files": [{"file_id": "f"}] * 2}, "files[1].file_id"),
    ("/vs/file_batches", {"files": [{"file_id": "f", "x": 1}]}, "files[0].x"),
    ("/vs/search", {}, "query"),
    ("/vs/search", {"query": ""}, "query"),
    ("/vs/search", {"query": []}, "query"),
    ("/vs/search", {"query": ["a", 1]}, "query[1]"),
    ("/vs/search", {"query": "x" * 4097}, "query"),
    ("/vs/search", {"query": "a", "max_num_results": 51}, "max_num_results"),
    ("/vs/search", {"query": "a", "max_num_results": 0}, "max_num_results"),
    ("/vs/search", {"query": "a", "ranking_options": {"ranker": "best"}}, "ranking_options.ranker"),
    ("/vs/search", {"query": "a", "ranking_options": {"score_threshold": 1.1}},
     "ranking_options.score_threshold"),
    ("/vs/search", {"query": "a", "ranking_options": {"x": 1}}, "ranking_options.x"),
    ("/vs/search", {"query": "a", "filters": {"type": "like"}}, "filters.type"),
    ("/vs/search", {"query": "a", "rewrite_query": 1}, "rewrite_query"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "param"), WRONG)
async def test_what_is_wrong_is_named(path: str, body: dict[str, Any], param: str) -> None:
    """H1: before anything is looked up."""
    error = await StoreRig().refused("POST", path, body)
    assert (error["status"], error["param"]) == (400, param)


@pytest.mark.parametrize(
    ("size", "overlap", "param"),
    [
        (99, 0, "max_chunk_size_tokens"),
        (4097, 0, "max_chunk_size_tokens"),
        (100, 51, "chunk_overlap_tokens"),
        (100, -1, "chunk_overlap_tokens"),
        (100, None, "chunk_overlap_tokens"),
    ],
)
async def test_chunks_have_the_bounds_of_the_api(
    size: int, overlap: int | None, param: str
) -> None:
    """H1: an overlap is at most half of a chunk."""
    static = {"max_chunk_size_tokens": size, "chunk_overlap_tokens": overlap}
    body = {"file_id": "f", "chunking_strategy": {"type": "static", "static": static}}
    error = await StoreRig().refused("POST", "/vs/files", body)
    assert error["param"] == f"chunking_strategy.static.{param}"


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("?limit=0", "limit"), ("?limit=101", "limit"), ("?order=up", "order"), ("?x=1", "x"),
        ("?filter=completed", "filter"), ("/vs/files?filter=done", "filter"), ("?after=", "after"),
        ("?before=nothing", "before"), ("/vs?x=1", "x"),
    ],
)  # fmt: skip
async def test_wrong_parameters_are_named(path: str, param: str) -> None:
    """H2."""
    error = await StoreRig().refused("GET", path)
    assert (error["status"], error["param"]) == (400, param)


async def test_anothers_store_is_not_there() -> None:
    """X1: the same error as for one that nobody has."""
    rig = StoreRig()
    made = (await rig.made())["id"]
    other = Caller("other")
    for method, path, body in (
        ("GET", "", None),
        ("POST", "", {}),
        ("DELETE", "", None),
        ("GET", "/files", None),
        ("POST", "/search", {"query": "a"}),
        ("POST", "/files", {"file_id": "f"}),
        ("POST", "/file_batches", {"file_ids": ["f"]}),
        ("GET", "/files/f", None),
        ("GET", "/file_batches/f", None),
    ):
        theirs = await rig.ask(method, f"/{made}{path}", body, caller=other)
        nobodys = await rig.ask(method, f"/vs_{HEX}{path}", body, caller=other)
        assert theirs.status == nobodys.status == 404
        assert theirs.body.replace(made.encode(), b"ID") == nobodys.body.replace(
            f"vs_{HEX}".encode(), b"ID"
        )


async def test_without_embeddings_it_is_said_which_setting_is_missing() -> None:
    """H1: stores can be made, files cannot be attached, and nothing is silent."""
    rig = StoreRig()
    bare = Rig(FakeModel())
    rig.engine = bare
    store = (await rig.made())["id"]
    file_id = await rig.upload("hello")
    for path, body in (
        ("", {"file_ids": [file_id]}),
        (f"/{store}/files", {"file_id": file_id}),
        (f"/{store}/file_batches", {"file_ids": [file_id]}),
        (f"/{store}/search", {"query": "a"}),
    ):
        error = await rig.refused("POST", path, body)
        assert (error["status"], error["code"]) == (400, "retrieval_not_configured")
        assert "HOLDFAST_EMBEDDINGS__SOURCE" in error["message"]


async def test_a_query_is_rewritten_by_a_model() -> None:
    """The answer tells what was searched for; the model is sent the query alone."""
    spoken = frames_of(replies.stream(text("cat mat")))
    rig = StoreRig(FakeModel(*spoken), rewrite_model="small")
    store = (await rig.made())["id"]
    async with rig.working():
        await rig.attached(store, "the cat sat on the mat")
    page = await rig.made(f"/{store}/search", query="who was it?", rewrite_query=True)
    assert page["search_query"] == ["cat mat"]
    assert len(page["data"]) == 1
    [body] = rig.engine.model.bodies
    asked = json.loads(body)
    assert asked["model"] == "small"
    assert asked["input"] == [{"role": "user", "content": "who was it?"}]


async def test_rewriting_without_a_model_is_refused() -> None:
    """H1."""
    rig = StoreRig()
    store = (await rig.made())["id"]
    error = await rig.refused("POST", f"/{store}/search", {"query": "a", "rewrite_query": True})
    assert (error["status"], error["param"]) == (400, "rewrite_query")
    assert "HOLDFAST_RETRIEVAL__REWRITE_MODEL" in error["message"]


async def test_attaching_and_searching_keep_a_store_alive() -> None:
    """Its days count from the last of these; when they have passed, what would use it is a 404."""
    clocked = Clocked()
    rig = StoreRig(store=clocked)
    store = (await rig.made(expires_after={"anchor": "last_active_at", "days": 1}))["id"]
    file_id = await rig.upload("hello")
    for path, body in (
        ("files", {"file_id": file_id}),
        ("file_batches", {"file_ids": [file_id]}),
        ("search", {"query": "hello"}),
    ):
        clocked.now += 80_000
        await rig.made(f"/{store}/{path}", **body)
        assert (await rig.got(f"/{store}"))["last_active_at"] == clocked.now
    clocked.now += 86_401
    assert (await rig.got(f"/{store}"))["status"] == "expired"
    for path, body in (("files", {"file_id": file_id}), ("search", {"query": "hello"})):
        error = await rig.refused("POST", f"/{store}/{path}", body)
        assert (error["status"], "has expired" in error["message"]) == (404, True)


async def test_content_is_there_when_the_file_is_done() -> None:
    """And until then it is said what it is."""
    rig = StoreRig()
    store = (await rig.made())["id"]
    file_id = await rig.upload("hello")
    await rig.made(f"/{store}/files", file_id=file_id)
    error = await rig.refused("GET", f"/{store}/files/{file_id}/content")
    assert (error["status"], "in_progress" in error["message"]) == (409, True)


async def test_nothing_can_fail_behind_what_was_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    """P2: a client that is told of a failure does it again: nothing is there then that nobody was told of."""
    rig = StoreRig()
    store = (await rig.made())["id"]
    file_id = await rig.upload("hello")
    attach = rig.store.attach

    async def away(*_args: object) -> None:
        raise StorageUnavailable("away")

    async def the_last(*args: Any, **options: Any) -> Attached | None:
        attached = await attach(*args, **options)
        for name in ("get_vector_store", "get_batch", "touch_vector_stores"):
            monkeypatch.setattr(rig.store, name, away)
        return attached

    for path, body in (
        ("", {"file_ids": [file_id], "name": "made"}),
        (f"/{store}/files", {"file_id": file_id}),
        (f"/{store}/file_batches", {"file_ids": [file_id]}),
    ):
        monkeypatch.setattr(rig.store, "attach", the_last)
        answer = await rig.ask("POST", path, body)
        monkeypatch.undo()
        assert (answer.status, answer.headers) == (200, {"openai-poll-after-ms": "500"})
        made = json.loads(answer.body)
        where = f"{path}/{made['id']}" if path else f"/{made['id']}"
        assert await rig.got(where) == made


async def test_a_store_that_could_not_begin_with_its_files_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P4: no worker has to live on to take it back."""
    rig = StoreRig()
    file_id = await rig.upload("hello")

    async def away(*_args: object, **_options: object) -> None:
        raise StorageUnavailable("away")

    monkeypatch.setattr(rig.store, "attach", away)
    monkeypatch.setattr(rig.store, "delete_vector_store", away)
    assert (await rig.refused("POST", "", {"file_ids": [file_id]}))["status"] == 503
    monkeypatch.undo()
    assert (await rig.got(""))["data"] == []
