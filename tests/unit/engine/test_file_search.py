"""`file_search` through the loop: its items, its events, what the model is told, citations (T1, T8)."""

from __future__ import annotations

import asyncio
import json
from itertools import chain
from typing import Any

import pytest

from engine.api.filters import parse_filter
from engine.api.ownership import ToolPolicy
from engine.errors import IndexUnavailable
from engine.intake import Caller
from engine.upstream.choice import Choice
from tests.support import replies
from tests.support.engine_rig import CALLER, Rig, final, small
from tests.support.fake_model import FakeModel, Step, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.replies import call, text
from tests.support.scripts import CHAT
from tests.support.sdk import accumulated
from tests.support.stream_rules import check_stream
from tests.support.word_search import Passage, WordSearch

TOOL: dict[str, Any] = {"type": "file_search", "vector_store_ids": ["vs_1"]}
RESULTS = ["file_search_call.results"]
SEAT = Passage("file-law", "law.pdf", "The seat belt is worn at all times.", {"year": 1970.0})
HELMET = Passage("file-moto", "moto.md", "A helmet is worn on a motorcycle.", {"year": 1999.0})


def turn(*parts: Any) -> list[Step]:
    return list(frames_of(replies.stream(*parts)))


def search(*queries: str) -> Any:
    return call("file_search", json.dumps({"queries": queries}))


def files() -> WordSearch:
    """A store with two passages."""
    made = WordSearch()
    made.put("vs_1", SEAT, HELMET)
    return made


def rig_of(*turns: list[Step], stored: WordSearch | None = None, **limits: Any) -> Rig:
    return Rig(
        FakeModel(*frames_of(replies.stream(text("done"))), turns=turns),
        files=files() if stored is None else stored,
        limits=small(**limits),
    )


def asked(rig: Rig, number: int) -> Any:
    """What the model was sent in a turn."""
    return json.loads(rig.model.bodies[number])


def outputs(rig: Rig, number: int) -> list[str]:
    """What it was told of calls."""
    return [
        i["output"] for i in asked(rig, number)["input"] if i.get("type") == "function_call_output"
    ]


def said(rig: Rig, number: int) -> list[str]:
    """What it was told to have said."""
    return [i["content"] for i in asked(rig, number)["input"] if i.get("role") == "assistant"]


def refused(reply: FakeReply) -> tuple[int, str]:
    """The status and what of the request it is about."""
    assert reply.whole is not None
    return reply.whole.status, reply.json["error"]["param"]


def kinds(response: Any) -> list[str]:
    return [item["type"] for item in response["output"]]


async def test_a_search_is_an_item_with_events_of_its_own() -> None:
    """T1, T8, R4-R6: queries and no results, no function call, no arguments."""
    rig = rig_of(turn(search("seat belt")), turn(text("Wear it 【1】.")))

    reply = await rig.create(stream=True, tools=[TOOL])
    events = check_stream(reply.raw)

    response = final(events)
    assert kinds(response) == ["file_search_call", "message"]
    found = response["output"][0]
    assert found["id"].startswith("fs_")
    assert found == {
        "id": found["id"],
        "type": "file_search_call",
        "status": "completed",
        "queries": ["seat belt"],
        "results": None,
    }
    names = [event["type"].removeprefix("response.") for event in events]
    assert names[2:7] == [
        "output_item.added",
        "file_search_call.in_progress",
        "file_search_call.searching",
        "file_search_call.completed",
        "output_item.done",
    ]
    assert events[2]["item"]["queries"] == []
    assert not [name for name in names if "function_call" in name or "list_tools" in name]
    assert b"seat belt is worn" not in reply.raw
    assert b": held" not in reply.raw
    assert accumulated(reply.raw).output_text == "Wear it."


async def test_what_was_found_is_told_to_the_model_with_numbers() -> None:
    """T8, M4: file names, texts, numbers; how to cite."""
    rig = rig_of(turn(search("seat belt worn", "helmet")))
    await rig.stream(tools=[TOOL])

    [told] = outputs(rig, 1)
    assert told.startswith(f"【1】 law.pdf (file-law)\n{SEAT.text}\n\n【2】 moto.md (file-moto)\n")
    [called] = [i for i in asked(rig, 1)["input"] if i.get("type") == "function_call"]
    assert (called["name"], json.loads(called["arguments"])["queries"][1]) == (
        "file_search",
        "helmet",
    )
    [declared] = asked(rig, 0)["tools"]
    assert (declared["name"], declared["parameters"]["required"]) == ("file_search", ["queries"])
    assert "【" in declared["description"]


async def test_citations_are_annotations_with_true_offsets() -> None:
    """T8: out of the text, everywhere; in code points; streamed; also without a stream the same."""
    answer = ("Gürtel 𝄞 tragen", " 【", "1】", " immer【1, 2】.", " 【9】 no")
    rig = rig_of(
        turn(search("worn")), turn(text(*answer)), turn(search("worn")), turn(text(*answer))
    )

    events = await rig.stream(tools=[TOOL])
    whole = (await rig.create(tools=[TOOL])).json

    [message] = [i for i in final(events)["output"] if i["type"] == "message"]
    [part] = message["content"]
    assert part["text"] == "Gürtel 𝄞 tragen immer. 【9】 no"
    law = {"type": "file_citation", "file_id": "file-law", "filename": "law.pdf"}
    moto = {"type": "file_citation", "file_id": "file-moto", "filename": "moto.md"}
    cited = part["annotations"]
    assert [each["index"] for each in cited] == [15, 21, 21]
    assert {each["file_id"] for each in cited} == {"file-law", "file-moto"}
    assert all({k: v for k, v in each.items() if k != "index"} in (law, moto) for each in cited)
    added = [e for e in events if e["type"] == "response.output_text.annotation.added"]
    assert [e["annotation"] for e in added] == cited
    assert [e["annotation_index"] for e in added] == [0, 1, 2]
    deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
    assert "".join(deltas) == part["text"]
    assert whole["output"][1]["content"] == [part]
    stored = await rig.retrieve(final(events)["id"])
    assert stored["output"] == final(events)["output"]


async def test_results_are_shown_where_they_were_asked_for() -> None:
    """T8: `include`."""
    rig = rig_of(turn(search("seat belt")))
    response = final(await rig.stream(tools=[TOOL], include=RESULTS))
    [first, *_] = response["output"][0]["results"]
    assert first == {
        "attributes": {"year": 1970.0},
        "file_id": "file-law",
        "filename": "law.pdf",
        "score": 1.0,
        "text": SEAT.text,
    }


async def test_what_the_declaration_says_is_what_is_searched_for() -> None:
    """T8: all stores, filters, ranking options, max results; the echo is what was declared."""
    stored = files()
    stored.put("vs_2", Passage("file-b", "b.txt", "belt"))
    filters = {"type": "gt", "key": "year", "value": 1980}
    options = {
        "ranker": "default-2024-11-15",
        "score_threshold": 0.25,
        "hybrid_search": {"embedding_weight": 2, "text_weight": 1},
    }
    tool = {
        "type": "file_search",
        "vector_store_ids": ["vs_1", "vs_2"],
        "filters": filters,
        "max_num_results": 3,
        "ranking_options": options,
    }
    rig = rig_of(turn(search("worn")), stored=stored)

    response = final(await rig.stream(tools=[tool], include=RESULTS))

    assert response["tools"] == [tool]
    [made] = stored.asked
    assert list(made.stores) == ["vs_1", "vs_2"]
    assert (made.limit, made.threshold, made.ranker) == (3, 0.25, "default-2024-11-15")
    assert (made.weights, made.filters) == ((2.0, 1.0), parse_filter(filters, ""))
    assert [each["file_id"] for each in response["output"][0]["results"]] == ["file-moto"]


async def test_searches_of_one_turn_run_side_by_side_and_share_no_number() -> None:
    """T2, T8: numbers count on, also over turns."""
    stored = files()
    stored.gate = asyncio.Event()
    rig = rig_of(
        turn(search("seat"), search("helmet")),
        turn(search("worn")),
        turn(text("A【1】B【2】C【3】D【4】")),
        stored=stored,
    )
    running = rig.start(FakeReply(), stream=True, tools=[TOOL])
    await rig.until(lambda: len(stored.asked) == 2)
    stored.gate.set()

    response = final(check_stream((await running).raw))

    numbers = [[n for n in range(1, 9) if f"【{n}】 " in told] for told in outputs(rig, 2)]
    assert sorted(chain(*numbers)) == [1, 2, 3, 4]
    assert [len(each) for each in numbers] == [1, 1, 2]
    [*_, message] = response["output"]
    assert message["content"][0]["text"] == "ABCD"
    assert [each["index"] for each in message["content"][0]["annotations"]] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("{not json", "not what file_search takes"),
        ("{}", "at least one string"),
        ('{"queries": []}', "at least one string"),
        ('{"queries": [" "]}', "at least one string"),
        ('{"queries": [1]}', "not what file_search takes"),
        (json.dumps({"queries": ["q"] * 9 + [f"q{n}" for n in range(9)]}), "8 strings"),
    ],
)
async def test_arguments_that_are_none_are_told_to_the_model(arguments: str, told: str) -> None:
    """T2, T7: nothing is searched for."""
    stored = files()
    rig = rig_of(turn(call("file_search", arguments)), stored=stored)
    response = final(await rig.stream(tools=[TOOL]))
    found = response["output"][0]
    assert (found["status"], found["results"]) == ("failed", None)
    assert (response["status"], stored.asked) == ("completed", [])
    [output] = outputs(rig, 1)
    assert told in output


@pytest.mark.parametrize("arguments", ['{"query": "belt"}', '{"queries": "belt"}'])
async def test_one_query_is_taken_as_small_models_write_it(arguments: str) -> None:
    """T8."""
    rig = rig_of(turn(call("file_search", arguments)))
    found = final(await rig.stream(tools=[TOOL]))["output"][0]
    assert (found["status"], found["queries"]) == ("completed", ["belt"])


async def test_a_search_that_fails_is_told_to_the_model(caplog: pytest.LogCaptureFixture) -> None:
    """T2, P5: and the response goes on; the log does not repeat what a server said."""
    stored = files()
    stored.broken = IndexUnavailable("The index is away.")
    rig = rig_of(turn(search("belt")), stored=stored)
    response = final(await rig.stream(tools=[TOOL], include=RESULTS))
    assert response["output"][0]["status"] == "failed"
    assert response["status"] == "completed"
    assert outputs(rig, 1) == ["The search failed: The index is away."]
    assert "IndexUnavailable (vector_index_unavailable)" in caplog.text
    assert "is away" not in caplog.text


async def test_a_search_that_takes_too_long_has_failed() -> None:
    """T2: its deadline."""
    stored = files()
    stored.gate = asyncio.Event()
    rig = rig_of(turn(search("belt")), stored=stored, tool_call=0.01)
    response = final(await rig.stream(tools=[TOOL]))
    assert response["output"][0]["status"] == "failed"
    assert "longer than" in outputs(rig, 1)[0]
    assert stored.given_up == 1


async def test_nothing_found_is_told_as_that() -> None:
    """T8."""
    rig = rig_of(turn(search("quantum")), turn(text("No【1】.")))
    response = final(await rig.stream(tools=[TOOL], include=RESULTS))
    assert response["output"][0]["results"] == []
    assert "Nothing was found" in outputs(rig, 1)[0]
    assert response["output"][1]["content"][0]["text"] == "No【1】."


async def test_what_the_model_is_told_is_bounded() -> None:
    """X5: the worst fitting passages are left out, of the best one its beginning stays."""
    stored = WordSearch()
    stored.put("vs_1", Passage("file-a", "a", "belt " + "é" * 2000), Passage("file-b", "b", "belt"))
    rig = rig_of(turn(search("belt")), stored=stored, search_bytes=1001)
    [first] = final(await rig.stream(tools=[TOOL], include=RESULTS))["output"][0]["results"]
    assert first["text"] == "belt " + "é" * 498
    assert len(outputs(rig, 1)[0].encode()) < 1300


# -- stores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"background": True}, {"store": False}])
async def test_a_store_that_is_not_there_is_refused_before_any_byte(fields: Any) -> None:
    """X1: the same for one of another tenant's; nothing is stored, the model is not called."""
    stored = files()
    stored.put("vs_theirs", SEAT, tenant="other")
    rig = rig_of(stored=stored)
    answers = []
    for store in ("vs_theirs", "vs_none42"):
        tool = {**TOOL, "vector_store_ids": ["vs_1", store]}
        reply = await rig.create(tools=[tool], **fields)
        assert refused(reply) == (404, "tools[0].vector_store_ids[1]")
        answers.append(json.dumps(reply.json).replace(store, "ID"))
    assert answers[0] == answers[1]
    assert (await rig.stored(), rig.model.bodies) == ([], [])


async def test_an_expired_store_is_refused_and_says_so() -> None:
    """H1: it is the tenant's own."""
    stored = files()
    stored.expire("vs_1")
    reply = await rig_of(stored=stored).create(tools=[TOOL])
    assert refused(reply) == (404, "tools[0].vector_store_ids[0]")
    assert "expired" in reply.json["error"]["message"]


async def test_a_store_that_goes_while_it_runs_is_a_failed_search() -> None:
    """X1, T2: in the loop."""
    stored = files()
    stored.gate = asyncio.Event()
    rig = rig_of(turn(search("belt")), stored=stored)
    running = rig.start(FakeReply(), stream=True, tools=[TOOL])
    await rig.until(lambda: stored.asked)
    stored.remove("vs_1")
    stored.gate.set()
    response = final(check_stream((await running).raw))
    assert response["output"][0]["status"] == "failed"
    assert "not found" in outputs(rig, 1)[0]


async def test_the_search_is_the_tenants_own() -> None:
    """X1: the same ids mean nothing to another."""
    stored = files()
    stored.put("vs_1", Passage("file-b", "b.txt", "belt of another"), tenant="other")
    rig = rig_of(turn(search("belt")), stored=stored)
    reply = await rig.create(caller=Caller("other"), tools=[TOOL], include=RESULTS, store=False)
    assert [r["file_id"] for r in reply.json["output"][0]["results"]] == ["file-b"]


# -- choice and ownership ------------------------------------------------------------------------


async def test_a_forced_search_is_forced_once() -> None:
    """T4."""
    rig = rig_of(turn(search("belt")))
    await rig.stream(tools=[TOOL], tool_choice={"type": "file_search"})
    assert asked(rig, 0)["tool_choice"] == {"type": "function", "name": "file_search"}
    assert "tool_choice" not in asked(rig, 1)


async def test_allowed_tools_hold_for_searches() -> None:
    """T4: a hard limit, both ways."""
    f = {"type": "function", "name": "f"}
    only = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "file_search"}]}
    rig = rig_of(turn(search("belt")))
    assert (
        kinds(final(await rig.stream(tools=[TOOL, f], tool_choice=only)))[0] == "file_search_call"
    )
    assert [tool["name"] for tool in asked(rig, 0)["tools"]] == ["file_search"]

    without = {**only, "tools": [f]}
    rig = rig_of(turn(search("belt")))
    response = final(await rig.stream(tools=[TOOL, f], tool_choice=without))
    assert response["output"][0]["status"] == "failed"
    assert "does not allow" in outputs(rig, 1)[0]


async def test_max_tool_calls_counts_searches() -> None:
    """T4."""
    rig = rig_of(turn(search("belt")), turn(search("helmet")))
    response = final(await rig.stream(tools=[TOOL], max_tool_calls=1))
    assert [item["status"] for item in response["output"]] == ["completed", "failed"]
    assert response["incomplete_details"] == {"reason": "max_tool_calls"}


async def test_a_function_of_the_clients_may_have_its_name() -> None:
    """T5: the names are kept apart."""
    f = {"type": "function", "name": "file_search"}
    rig = rig_of(turn(call("file_search__file_search", '{"queries": ["belt"]}')))
    assert kinds(final(await rig.stream(tools=[TOOL, f])))[0] == "file_search_call"


async def test_without_a_search_it_is_refused() -> None:
    """H1, T3: the message names the settings."""
    reply = await Rig(FakeModel()).create(tools=[TOOL])
    assert refused(reply) == (400, "tools[0].type")
    assert "embeddings.source" in reply.json["error"]["message"]


async def test_the_settings_may_leave_it_to_the_model_server() -> None:
    """T3: also where files could be searched here."""
    rig = Rig(
        FakeModel(*frames_of(replies.stream(text("done")))),
        files=files(),
        policy=ToolPolicy(upstream_types=frozenset({"file_search"})),
    )
    await rig.stream(tools=[TOOL])
    assert asked(rig, 0)["tools"] == [TOOL]


# -- later turns ---------------------------------------------------------------------------------


async def test_a_continuation_is_told_what_was_found_and_may_cite_it() -> None:
    """M2, M4, M9, T8: numbers count on; the model is shown the marks that it wrote."""
    rig = rig_of(
        turn(search("seat")),
        turn(text("Belt【1】.")),
        turn(search("helmet")),
        turn(text("Helmet【2】, belt【1】.")),
    )
    first = final(await rig.stream(tools=[TOOL]))
    second = final(await rig.stream(tools=[TOOL], previous_response_id=first["id"]))

    [before, after] = outputs(rig, 3)
    assert "【1】 law.pdf" in before
    assert "【2】 moto.md" in after
    assert said(rig, 2) == ["Belt【1】."]
    cited = second["output"][1]["content"][0]["annotations"]
    assert [(each["file_id"], each["index"]) for each in cited] == [
        ("file-moto", 6),
        ("file-law", 12),
    ]
    # What the model was sent before is what it is sent again.
    sent = [rig.model.bodies[n].partition(b'"input":[')[2].partition(b"]")[0] for n in (1, 2)]
    assert sent[1].startswith(sent[0])


async def test_a_continuation_without_the_tool_may_still_cite() -> None:
    """T8: what it is told of is there."""
    rig = rig_of(turn(search("seat")), turn(text("Belt【1】.")), turn(text("As said【1】.")))
    first = final(await rig.stream(tools=[TOOL]))
    second = final(await rig.stream(previous_response_id=first["id"]))
    [part] = second["output"][0]["content"]
    assert (part["text"], len(part["annotations"])) == ("As said.", 1)


async def test_text_is_not_touched_where_nothing_was_searched() -> None:
    """T8: brackets are prose."""
    rig = rig_of(turn(text("So【1】.")))
    response = final(await rig.stream(tools=[TOOL]))
    assert response["output"][0]["content"][0]["text"] == "So【1】."


async def test_items_sent_back_are_told_to_the_model() -> None:
    """M4, M8: as the Agents SDK sends them, with results; annotations are taken as they are."""
    rig = rig_of(turn(search("seat")), turn(text("Belt【1】.")), turn(text("Still【1】.")))
    first = final(await rig.stream(tools=[TOOL], include=RESULTS, store=False))
    items = [{"role": "user", "content": "hi"}, *first["output"], {"role": "user", "content": "?"}]

    second = final(await rig.stream(tools=[TOOL], input=items, store=False))

    [told] = outputs(rig, 2)
    assert "【1】 law.pdf (file-law)\nThe seat belt" in told
    assert said(rig, 2) == ["Belt."]
    [part] = second["output"][0]["content"]
    assert [each["file_id"] for each in part["annotations"]] == ["file-law"]


async def test_references_and_items_sent_back_share_no_number() -> None:
    """T8, M8: what is read from the store keeps its numbers."""
    rig = rig_of(turn(search("seat")), turn(text("Belt【1】.")), turn(text("A【1】B【2】")))
    first = final(await rig.stream(tools=[TOOL]))
    result = {"file_id": "file-x", "filename": "x.txt", "text": "found there"}
    items = [
        {"role": "user", "content": "hi"},
        {"type": "file_search_call", "queries": ["a"], "results": [result]},
        {"type": "item_reference", "id": first["output"][0]["id"]},
        {"role": "user", "content": "?"},
    ]
    response = final(await rig.stream(input=items))
    cited = response["output"][0]["content"][0]["annotations"]
    assert [each["file_id"] for each in cited] == ["file-law", "file-x"]


async def test_a_server_of_chat_completions_searches_and_cites_too() -> None:
    """M4, T8: the same items, whatever the dialect."""
    turns = [
        list(frames_of(replies.stream(part), path=CHAT))
        for part in (search("seat"), text("Belt", " 【", "1】."))
    ]
    rig = Rig(FakeModel(turns=turns), choice=Choice("chat"), files=files())
    response = final(await rig.stream(tools=[TOOL]))
    assert kinds(response) == ["file_search_call", "message"]
    [told] = [m["content"] for m in asked(rig, 1)["messages"] if m["role"] == "tool"]
    assert SEAT.text in told
    [part] = response["output"][1]["content"]
    assert (part["text"], part["annotations"][0]["index"]) == ("Belt.", 4)


async def test_items_sent_back_without_results_are_left_out() -> None:
    """M4: nothing is known of them; with `previous_response_id` it is."""
    rig = rig_of(turn(search("seat")), turn(text("Belt【1】.")))
    first = final(await rig.stream(tools=[TOOL], store=False))
    items = [{"role": "user", "content": "hi"}, *first["output"], {"role": "user", "content": "?"}]
    await rig.stream(tools=[TOOL], input=items, store=False)
    assert outputs(rig, 2) == []
    assert said(rig, 2) == ["Belt."]


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"queries": None}, "queries"),
        ({"queries": [1]}, "queries[0]"),
        ({"status": "x"}, "status"),
        ({"results": [1]}, "results[0]"),
        ({"results": [{"x": 1}]}, "results[0].x"),
        ({"results": [{"attributes": {"a": []}}]}, "results[0].attributes.a"),
        ({"id": 1}, "id"),
        ({"x": 1}, "x"),
    ],
)
async def test_a_wrong_item_is_refused_at_its_place(changed: Any, param: str) -> None:
    """H1."""
    item = {"type": "file_search_call", "queries": ["a"], **changed}
    reply = await rig_of().create(input=[item])
    assert refused(reply) == (400, f"input[0].{param}")


async def test_a_search_among_the_items_of_a_conversation_is_told() -> None:
    """M7: as one that was made here."""
    rig = rig_of(turn(text("So【1】.")))
    result = {"file_id": "file-x", "filename": "x.txt", "text": "found there"}
    item = {"type": "file_search_call", "queries": ["a"], "results": [result]}
    made = await rig.conversations.create(CALLER, json.dumps({"items": [item]}).encode(), "")
    wanted = json.loads(made.body)["id"]
    response = final(await rig.stream(conversation=wanted))
    assert "【1】 x.txt (file-x)\nfound there" in outputs(rig, 0)[0]
    assert response["output"][0]["content"][0]["annotations"][0]["file_id"] == "file-x"


# -- the log -------------------------------------------------------------------------------------


async def test_who_reads_the_log_sees_what_the_client_saw() -> None:
    """P6, X4: notes for a later worker stay in the log."""
    rig = rig_of(turn(search("seat belt")), turn(text("Wear it【1】.")))
    reply = await rig.create(stream=True, tools=[TOOL])
    wanted = final(check_stream(reply.raw))["id"]
    assert b": held {" in await rig.log(wanted)
    follower = FakeReply()
    await rig.responses.retrieve(CALLER, wanted, "stream=true", follower)
    assert bytes(follower.raw) == bytes(reply.raw)
