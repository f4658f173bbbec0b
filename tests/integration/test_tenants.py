"""Two tenants, by real tokens and by a gateway's header: neither can tell that the other exists (X1, X2).

Every route of the API is asked for what is the other's and for what is nobody's; the answers must be the
same bytes. A route without a probe fails the test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import openai
import pytest
import pytest_asyncio

from extproc.routes import ROUTES, Operation
from storage.pgvector.migrations import migrate_vectors
from storage.postgres.embedded import EmbeddedPostgres
from storage.postgres.migrate import migrate
from tests.support.embeddings_server import EmbeddingsServer
from tests.support.fix_postgres import create_database
from tests.support.jwts import AUDIENCE, Issuer, altered
from tests.support.replies import say, text
from tests.support.retrieving import embedded_by
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import Stack, eventually, running_stack, short_directory, standalone_stack
from tests.support.tenants import (
    A_PROMPT,
    Tenants,
    a_connector,
    a_form,
    bearer,
    speaking,
    two_tenants,
)
from tests.support.wire import (
    CONNECTORS,
    FILES,
    PROMPTS,
    RESPONSES,
    UPLOADS,
    VECTOR_STORES,
    Seen,
    Wire,
)

# Differ from answer to answer, whoever asks.
PASSING = {"date", "x-request-id"}


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """Who makes the tokens that are accepted here."""
    return Issuer()


@pytest_asyncio.fixture(scope="module")
async def embedder() -> AsyncIterator[EmbeddingsServer]:
    """What makes vectors, for whoever has vector stores."""
    async with EmbeddingsServer() as server:
        yield server


@pytest_asyncio.fixture(scope="module")
async def guarded(
    postgres_server: EmbeddedPostgres,
    stage: ScriptedModel,
    issuer: Issuer,
    embedder: EmbeddingsServer,
) -> AsyncIterator[Stack]:
    """Two workers behind an Envoy that verifies tokens."""
    with short_directory() as directory:
        keys = directory / "jwks.json"
        keys.write_text(issuer.keys)
        async with running_stack(
            stage,
            await create_database(postgres_server),
            headers=bearer(issuer.token("somebody")),
            tenancy={"mode": "required", "source": "jwt"},
            jwt={"issuer": issuer.name, "audiences": AUDIENCE, "jwks_file": keys},
            **embedded_by(embedder),
        ) as running:
            yield running


@pytest_asyncio.fixture(scope="module")
async def believed(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel, embedder: EmbeddingsServer
) -> AsyncIterator[Stack]:
    """Two workers that speak HTTP and believe a gateway's header; there is no Envoy."""
    database = await create_database(postgres_server)
    await migrate(database)
    await migrate_vectors(database)
    async with standalone_stack(
        stage,
        database,
        tenancy={
            "mode": "required",
            "source": "header",
            "header": "x-tenant",
            "header_from_gateway": True,
        },
        headers=None,
        **embedded_by(embedder),
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def tenants(guarded: Stack, issuer: Issuer) -> AsyncIterator[Tenants]:
    """Two tenants with tokens."""
    mine, others = (bearer(issuer.token(f"tenant-{uuid4()}")) for _ in range(2))
    async with two_tenants(guarded, mine, others) as both:
        yield both


@pytest_asyncio.fixture(scope="module")
async def tenants_over_http(believed: Stack) -> AsyncIterator[Tenants]:
    """Two tenants whom a gateway tells apart."""
    mine, others = ({"x-tenant": f"tenant-{uuid4()}"} for _ in range(2))
    async with two_tenants(believed, mine, others) as both:
        yield both


@pytest.fixture(params=["tenants", "tenants_over_http"])
def either(request: pytest.FixtureRequest) -> Tenants:
    """Two tenants, before ext_proc and before HTTP."""
    both: Tenants = request.getfixturevalue(request.param)
    return both


# -- every route, asked for what is another's and for what is nobody's ---------------------------------


@dataclass(frozen=True)
class Probe:
    """A request with an id in it: `{id}` and `{mine}`, `{my conversation}`, `{my store}`, `{my file}`."""

    path: str = ""
    """Empty: the route's own."""
    query: str = ""
    body: Mapping[str, Any] | None = None
    status: int = 404
    form: bool = False
    names: str = "response"
    """What is asked for: the id of a `response`, an `item`, a `conversation`, a `connector`, a `prompt`, or a
    connector's `label`, a `store` of vectors or a `batch` of one."""


REFERENCE = [{"type": "item_reference", "id": "{id}"}, {"role": "user", "content": "hi"}]
SERVER = {"type": "mcp", "server_label": "s", "require_approval": "never"}
SEARCHED = {"tools": [{"type": "file_search", "vector_store_ids": ["{my store}", "{id}"]}]}
ITEMS = "/v1/conversations/{my conversation}/items"
STORE = f"{VECTOR_STORES}/{{my store}}"


def of_conversation(**more: Any) -> Probe:
    """Return a probe for a conversation's id."""
    return Probe(names="conversation", **more)


def of_store(**more: Any) -> Probe:
    """Return a probe for a vector store's id."""
    return Probe(names="store", **more)


def a_message(kind: str) -> list[dict[str, Any]]:
    """Return an input that names a file."""
    return [{"role": "user", "content": [{"type": kind, "file_id": "{id}"}]}]


PROBES: Mapping[Operation, Mapping[str, Probe]] = {
    Operation.CREATE: {
        "previous": Probe(body={"previous_response_id": "{id}"}, status=400),
        "previous, streamed": Probe(
            body={"previous_response_id": "{id}", "stream": True}, status=400
        ),
        "previous, not stored": Probe(
            body={"previous_response_id": "{id}", "store": False}, status=400
        ),
        "reference": Probe(body={"input": REFERENCE}, status=400, names="item"),
        "reference, after mine": Probe(
            body={"input": REFERENCE, "previous_response_id": "{mine}"}, status=400, names="item"
        ),
        "conversation": of_conversation(body={"conversation": "{id}"}),
        "conversation, streamed": of_conversation(
            body={"conversation": {"id": "{id}"}, "stream": True}
        ),
        "conversation, not stored": of_conversation(body={"conversation": "{id}", "store": False}),
        "conversation, in the background": of_conversation(
            body={"conversation": "{id}", "background": True}
        ),
        "connector": Probe(
            body={"tools": [{**SERVER, "connector_id": "{id}"}]}, status=400, names="connector"
        ),
        "connector, in the background": Probe(
            body={"tools": [{**SERVER, "connector_id": "{id}"}], "background": True},
            status=400,
            names="connector",
        ),
        "prompt": Probe(body={"prompt": {"id": "{id}"}}, status=400, names="prompt"),
        "vector store": of_store(body=SEARCHED),
        "vector store, streamed": of_store(body={**SEARCHED, "stream": True}),
        "vector store, not stored": of_store(body={**SEARCHED, "store": False}),
        "vector store, in the background": of_store(body={**SEARCHED, "background": True}),
        "file": Probe(body={"input": a_message("input_file")}, status=400, names="file"),
        "file, in the background": Probe(
            body={"input": a_message("input_file"), "background": True}, status=400, names="file"
        ),
        "image": Probe(body={"input": a_message("input_image")}, status=400, names="file"),
        "prompt, at a version": Probe(
            body={"prompt": {"id": "{id}", "version": "1"}}, status=400, names="prompt"
        ),
        "connector's label": Probe(
            body={"tools": [{**SERVER, "server_label": "{id}"}]}, status=400, names="label"
        ),
    },
    Operation.COMPACT: {
        "previous": Probe(body={"previous_response_id": "{id}"}, status=400),
        "reference": Probe(body={"input": REFERENCE}, status=400, names="item"),
    },
    Operation.COUNT_TOKENS: {
        "previous": Probe(body={"previous_response_id": "{id}"}, status=400),
        "reference": Probe(body={"input": REFERENCE}, status=400, names="item"),
        "conversation": of_conversation(body={"conversation": "{id}"}),
    },
    Operation.LIST: {"after": Probe(query="?after={id}", status=400)},
    Operation.RETRIEVE: {
        "plain": Probe(),
        "with fields": Probe(query="?include[]=message.output_text.logprobs"),
        "as a stream": Probe(query="?stream=true", status=0),
        "as a stream, from within": Probe(query="?stream=true&starting_after=1", status=0),
    },
    Operation.DELETE: {"plain": Probe()},
    Operation.CANCEL: {"plain": Probe()},
    Operation.INPUT_ITEMS: {
        "plain": Probe(),
        "after an item": Probe(
            path=f"{RESPONSES}/{{mine}}/input_items", query="?after={id}", status=400, names="item"
        ),
    },
    Operation.CREATE_CONVERSATION: {
        "reference": Probe(body={"items": REFERENCE}, status=400, names="item"),
    },
    Operation.LIST_CONVERSATIONS: {"after": of_conversation(query="?after={id}", status=400)},
    Operation.RETRIEVE_CONVERSATION: {"plain": of_conversation()},
    Operation.UPDATE_CONVERSATION: {"plain": of_conversation(body={"metadata": {"a": "b"}})},
    Operation.DELETE_CONVERSATION: {"plain": of_conversation()},
    Operation.ADD_ITEMS: {
        "plain": of_conversation(body={"items": [{"role": "user", "content": "mine"}]}),
        "reference": Probe(path=ITEMS, body={"items": REFERENCE}, status=400, names="item"),
    },
    Operation.LIST_ITEMS: {
        "plain": of_conversation(query="?order=asc"),
        "after an item": Probe(path=ITEMS, query="?after={id}", status=400, names="item"),
    },
    Operation.RETRIEVE_ITEM: {
        "of a conversation": of_conversation(),
        "of mine": Probe(path=ITEMS + "/{id}", names="item"),
    },
    Operation.DELETE_ITEM: {
        "of a conversation": of_conversation(),
        "of mine": Probe(path=ITEMS + "/{id}", names="item"),
    },
    # It names nothing that there is; labels are tried below.
    Operation.CREATE_CONNECTOR: {},
    Operation.LIST_CONNECTORS: {
        "after": Probe(query="?after={id}", status=400, names="connector"),
        "after, oldest first": Probe(query="?order=asc&after={id}", status=400, names="connector"),
    },
    Operation.RETRIEVE_CONNECTOR: {"plain": Probe(names="connector")},
    Operation.UPDATE_CONNECTOR: {
        "plain": Probe(body={"description": "stolen"}, names="connector"),
        "nothing": Probe(body={}, names="connector"),
    },
    Operation.DELETE_CONNECTOR: {"plain": Probe(names="connector")},
    Operation.CONNECTOR_TOOLS: {"plain": Probe(names="connector")},
    # It names nothing that there is.
    Operation.CREATE_PROMPT: {},
    Operation.LIST_PROMPTS: {
        "after": Probe(query="?after={id}", status=400, names="prompt"),
        "after, oldest first": Probe(query="?order=asc&after={id}", status=400, names="prompt"),
    },
    Operation.RETRIEVE_PROMPT: {
        "plain": Probe(names="prompt"),
        "a version": Probe(query="?version=1", names="prompt"),
    },
    Operation.UPDATE_PROMPT: {
        "plain": Probe(body={"name": "stolen"}, names="prompt"),
        "default": Probe(body={"default_version": "1"}, names="prompt"),
    },
    Operation.DELETE_PROMPT: {"plain": Probe(names="prompt")},
    Operation.ADD_PROMPT_VERSION: {"plain": Probe(body=A_PROMPT, names="prompt")},
    Operation.PROMPT_VERSIONS: {
        "plain": Probe(names="prompt"),
        "after": Probe(query="?after=1", names="prompt"),
    },
    # They name nothing that there is.
    Operation.CREATE_FILE: {},
    Operation.CREATE_UPLOAD: {},
    Operation.LIST_FILES: {
        "after": Probe(query="?after={id}", status=400, names="file"),
        "after, oldest first": Probe(query="?order=asc&after={id}", status=400, names="file"),
    },
    Operation.RETRIEVE_FILE: {"plain": Probe(names="file")},
    Operation.DELETE_FILE: {"plain": Probe(names="file")},
    Operation.FILE_CONTENT: {"plain": Probe(names="file")},
    Operation.ADD_UPLOAD_PART: {"plain": Probe(names="upload", form=True)},
    Operation.COMPLETE_UPLOAD: {"plain": Probe(body={"part_ids": ["part_x"]}, names="upload")},
    Operation.CANCEL_UPLOAD: {"plain": Probe(names="upload")},
    Operation.CREATE_VECTOR_STORE: {
        "file": Probe(body={"file_ids": ["{id}"]}, status=400, names="file"),
    },
    Operation.LIST_VECTOR_STORES: {
        "after": of_store(query="?after={id}", status=400),
        "before, oldest first": of_store(query="?order=asc&before={id}", status=400),
    },
    Operation.RETRIEVE_VECTOR_STORE: {"plain": of_store()},
    Operation.UPDATE_VECTOR_STORE: {"plain": of_store(body={"name": "stolen"})},
    Operation.DELETE_VECTOR_STORE: {"plain": of_store()},
    Operation.SEARCH_VECTOR_STORE: {
        "plain": of_store(body={"query": "secret"}),
        "rewritten": of_store(body={"query": "secret", "rewrite_query": True}),
    },
    Operation.ATTACH_FILE: {
        "mine": of_store(body={"file_id": "{my file}"}),
        "into mine": Probe(
            path=f"{STORE}/files", body={"file_id": "{id}"}, status=400, names="file"
        ),
    },
    Operation.LIST_ATTACHED: {
        "plain": of_store(),
        "after": Probe(path=f"{STORE}/files", query="?after={id}", status=400, names="file"),
    },
    Operation.RETRIEVE_ATTACHED: {
        "plain": of_store(path=f"{VECTOR_STORES}/{{id}}/files/{{my file}}"),
        "of mine": Probe(path=f"{STORE}/files/{{id}}", names="file"),
    },
    Operation.LABEL_ATTACHED: {
        "plain": of_store(
            path=f"{VECTOR_STORES}/{{id}}/files/{{my file}}", body={"attributes": {"a": 1}}
        ),
        "of mine": Probe(path=f"{STORE}/files/{{id}}", body={"attributes": {"a": 1}}, names="file"),
    },
    Operation.DETACH_FILE: {
        "plain": of_store(path=f"{VECTOR_STORES}/{{id}}/files/{{my file}}"),
        "of mine": Probe(path=f"{STORE}/files/{{id}}", names="file"),
    },
    Operation.ATTACHED_CONTENT: {
        "plain": of_store(path=f"{VECTOR_STORES}/{{id}}/files/{{my file}}/content"),
        "of mine": Probe(path=f"{STORE}/files/{{id}}/content", names="file"),
    },
    Operation.CREATE_BATCH: {
        "plain": of_store(body={"file_ids": ["{my file}"]}),
        "into mine": Probe(
            path=f"{STORE}/file_batches", body={"file_ids": ["{id}"]}, status=400, names="file"
        ),
        "into mine, with options": Probe(
            path=f"{STORE}/file_batches",
            body={"files": [{"file_id": "{my file}"}, {"file_id": "{id}"}]},
            status=400,
            names="file",
        ),
    },
    Operation.RETRIEVE_BATCH: {
        "plain": of_store(),
        "of mine": Probe(path=f"{STORE}/file_batches/{{id}}", names="batch"),
    },
    Operation.CANCEL_BATCH: {
        "plain": of_store(),
        "of mine": Probe(path=f"{STORE}/file_batches/{{id}}/cancel", names="batch"),
    },
    Operation.BATCH_FILES: {
        "plain": of_store(),
        "of mine": Probe(path=f"{STORE}/file_batches/{{id}}/files", names="batch"),
    },
}


def cases() -> list[Any]:
    """Return each probe of each route; a route without one fails the test below."""
    return [
        pytest.param(method, pattern, probe, id=f"{operation.value}: {name}")
        for method, pattern, operation in ROUTES
        for name, probe in PROBES.get(operation, {}).items()
    ]


def nobodys(wanted: str) -> str:
    """Return an id of the same form that nobody has."""
    kind, mark, rest = wanted.partition("-" if wanted.startswith("file-") else "_")
    return f"{kind}{mark}{rest[::-1]}"


async def asked(
    tenants: Tenants, method: str, pattern: tuple[str | None, ...], probe: Probe, wanted: str
) -> Seen:
    """Send a probe for one id as the tenant who does not have it."""
    path = probe.path or "/v1/" + "/".join(wanted if part is None else part for part in pattern)
    body = None
    if probe.body is not None:
        asks = pattern[0] == "responses" and None not in pattern
        asking = {"model": "demo", "input": "hi"} if asks else {}
        body = filled({**asking, **probe.body}, wanted, tenants)
    target = filled(path + probe.query, wanted, tenants)
    if probe.form:
        return await tenants.mine.ask(method, target, data=a_form(data=b"stolen"))
    return await tenants.mine.ask(method, target, json=body)


def others_names(tenants: Tenants, probe: Probe) -> Mapping[str, str]:
    """Return what of the other tenant's a probe asks for."""
    return {
        "response": tenants.response_ids,
        "item": tenants.item_ids,
        "conversation": tenants.conversation_ids,
        "connector": tenants.connector_ids,
        "label": tenants.connector_labels,
        "prompt": tenants.prompt_ids,
        "file": tenants.file_ids,
        "upload": tenants.upload_ids,
        "store": tenants.store_ids,
        "batch": tenants.batch_ids,
    }[probe.names]


def filled(value: Any, wanted: str, mine: Tenants) -> Any:
    if isinstance(value, str):
        value = value.replace("{id}", wanted).replace("{mine}", mine.mine_id)
        value = value.replace("{my store}", mine.mine_store).replace("{my file}", mine.mine_file)
        return value.replace("{my conversation}", mine.mine_conversation)
    if isinstance(value, list):
        return [filled(part, wanted, mine) for part in value]
    if isinstance(value, dict):
        return {key: filled(part, wanted, mine) for key, part in value.items()}
    return value


def shown(seen: Seen, wanted: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return all of an answer that could tell one id from another, but for the id itself."""
    headers = [(k.lower(), v) for k, v in seen.headers.items() if k.lower() not in PASSING]
    return seen.status, headers, bytes(seen.raw).replace(wanted.encode(), b"ID")


def test_every_route_has_a_probe() -> None:
    """X1: a route that is added without one fails here."""
    assert {operation for _, _, operation in ROUTES} == set(Operation) == set(PROBES)


@pytest.mark.parametrize(("method", "pattern", "probe"), cases())
async def test_what_is_anothers_answers_as_what_is_nobodys(
    either: Tenants, method: str, pattern: tuple[str | None, ...], probe: Probe
) -> None:
    """X1, M3: status, headers and body are the same bytes, in whichever state the other's is."""
    for state, wanted in others_names(either, probe).items():
        unknown = nobodys(wanted)
        first = await asked(either, method, pattern, probe, wanted)
        second = await asked(either, method, pattern, probe, unknown)
        assert shown(first, wanted) == shown(second, unknown), state
        assert first.error, state
        assert first.status in ({probe.status} if probe.status else {400, 404}), state


async def test_anothers_summary_opens_for_nobody_else(tenants: Tenants) -> None:
    """X4: it is sealed for its tenant, and refused like one that was changed."""
    body = {"model": "demo", "input": "others"}
    made = await tenants.others.ask("POST", f"{RESPONSES}/compact", json=body)
    item = made.json["output"][-1]
    again = await tenants.others.create(model="demo", input=[item], stream=False)
    assert (made.status, again.status) == (200, 200)
    for path in (RESPONSES, f"{RESPONSES}/compact", f"{RESPONSES}/input_tokens"):
        taken = await tenants.mine.ask("POST", path, json={"model": "demo", "input": [item]})
        assert taken.status == 400
        assert taken.error["code"] == "invalid_encrypted_content"
        assert taken.error["param"] == "input[0].encrypted_content"


@pytest.mark.parametrize("state", ["completed", "streamed", "failed"])
async def test_anothers_requests_change_nothing(either: Tenants, state: str) -> None:
    """X1: after every probe, the owner finds its response as it was."""
    wanted = either.response_ids[state]
    before = await either.others.get(wanted)
    items = await either.others.ask("GET", f"{RESPONSES}/{wanted}/input_items")
    for method, pattern, operation in ROUTES:
        for probe in PROBES[operation].values():
            await asked(either, method, pattern, probe, wanted)

    assert (await either.others.get(wanted)).raw == before.raw
    assert (await either.others.ask("GET", f"{RESPONSES}/{wanted}/input_items")).raw == items.raw
    assert before.status == items.status == 200


async def test_anothers_requests_change_no_conversation(either: Tenants) -> None:
    """X1, M7: nor its items."""
    wanted = either.conversation_ids["said"]
    before = await either.others.ask("GET", f"/v1/conversations/{wanted}")
    items = await either.others.ask("GET", f"/v1/conversations/{wanted}/items")
    for method, pattern, operation in ROUTES:
        for probe in PROBES[operation].values():
            await asked(either, method, pattern, probe, wanted)
            if probe.names == "item":
                for item in either.item_ids.values():
                    await asked(either, method, pattern, probe, item)

    assert (await either.others.ask("GET", f"/v1/conversations/{wanted}")).raw == before.raw
    after = await either.others.ask("GET", f"/v1/conversations/{wanted}/items")
    assert after.raw == items.raw
    assert before.status == items.status == 200


async def test_anothers_requests_change_no_connector(either: Tenants) -> None:
    """X1: after every probe, the owner finds it as it was; its label is free for others."""
    [wanted] = either.connector_ids.values()
    [label] = either.connector_labels.values()
    before = await either.others.ask("GET", f"{CONNECTORS}/{wanted}")
    for method, pattern, operation in ROUTES:
        for probe in PROBES[operation].values():
            await asked(either, method, pattern, probe, wanted)
    made = await either.mine.ask("POST", CONNECTORS, json=a_connector(label))
    listed = (await either.mine.ask("GET", CONNECTORS)).json["data"]

    assert (await either.others.ask("GET", f"{CONNECTORS}/{wanted}")).raw == before.raw
    assert before.status == made.status == 200
    assert [each["id"] for each in listed] == [made.json["id"]] != [wanted]
    gone = await either.mine.ask("DELETE", f"{CONNECTORS}/{made.json['id']}")
    assert gone.status == 200


async def test_anothers_requests_change_no_prompt(either: Tenants) -> None:
    """X1: after every probe, the owner finds it as it was, with its one version."""
    [wanted] = either.prompt_ids.values()
    before = await either.others.ask("GET", f"{PROMPTS}/{wanted}/versions")
    for method, pattern, operation in ROUTES:
        for probe in PROBES[operation].values():
            await asked(either, method, pattern, probe, wanted)

    assert (await either.others.ask("GET", f"{PROMPTS}/{wanted}/versions")).raw == before.raw
    assert len(before.json["data"]) == 1
    assert (await either.mine.ask("GET", PROMPTS)).json["data"] == []


async def test_anothers_requests_change_no_file(either: Tenants) -> None:
    """X1: after every probe, the owner finds its file with its bytes, and can complete its upload."""
    [wanted] = either.file_ids.values()
    [upload] = either.upload_ids.values()
    for method, pattern, operation in ROUTES:
        for probe in PROBES[operation].values():
            await asked(either, method, pattern, probe, wanted)
            await asked(either, method, pattern, probe, upload)

    assert (await either.others.ask("GET", f"{FILES}/{wanted}/content")).raw == b"secret"
    mine = (await either.mine.ask("GET", FILES)).json["data"]
    assert [each["id"] for each in mine] == [either.mine_file]
    part = await either.others.ask("POST", f"{UPLOADS}/{upload}/parts", data=a_form(data=b"x"))
    assert part.status == 200


async def test_anothers_requests_change_no_vector_store(either: Tenants) -> None:
    """X1: after every probe, the owner finds its store, its batch and their file as they were."""
    [wanted] = either.store_ids.values()
    [batch] = either.batch_ids.values()
    [file] = either.file_ids.values()

    async def of_others() -> list[bytes]:
        paths = ("", "/files", f"/file_batches/{batch}")
        answers = [await either.others.ask("GET", f"{VECTOR_STORES}/{wanted}{p}") for p in paths]
        assert [answer.status for answer in answers] == [200, 200, 200]
        return [bytes(answer.raw) for answer in answers]

    async def ended() -> bool:
        return b'in_progress",' not in b"".join(await of_others())

    await eventually(ended)
    before = await of_others()
    for method, pattern, operation in ROUTES:
        for probe in PROBES[operation].values():
            for each in (wanted, batch, file):
                await asked(either, method, pattern, probe, each)

    assert await of_others() == before
    mine = (await either.mine.ask("GET", VECTOR_STORES)).json["data"]
    assert [store["id"] for store in mine] == [either.mine_store]


async def test_anothers_cancel_does_not_reach_a_running_response(either: Tenants) -> None:
    """X1: neither does deleting it."""
    wanted = either.response_ids["running"]
    for method, path in (("POST", f"{wanted}/cancel"), ("DELETE", wanted)):
        assert (await either.mine.ask(method, f"{RESPONSES}/{path}")).status == 404

    assert (await either.others.get(wanted)).json["status"] == "in_progress"


async def test_a_list_has_ones_own_alone(guarded: Stack, issuer: Issuer) -> None:
    """X1: to the last page, and by the name of a model that both use."""
    model = guarded.plays(say(text("ok")))
    async with AsyncExitStack() as parts:
        wires = [
            await parts.enter_async_context(speaking(guarded, bearer(issuer.token(str(uuid4())))))
            for _ in range(2)
        ]
        made: list[set[str]] = []
        for wire, count in zip(wires, (3, 2), strict=True):
            seen = [await wire.create(model=model, stream=False) for _ in range(count)]
            made.append({answer.json["id"] for answer in seen})
        for wire, own in zip(wires, made, strict=True):
            for query in ("?limit=1", "?limit=100", f"?model={model}"):
                assert await listed(wire, query) == own


async def listed(wire: Wire, query: str) -> set[str]:
    """Return the ids of a list, all pages of it."""
    found: list[str] = []
    while True:
        after = f"&after={found[-1]}" if found else ""
        page = (await wire.ask("GET", f"{RESPONSES}{query}{after}")).json
        found += [response["id"] for response in page["data"]]
        if not page["has_more"]:
            return set(found)


async def test_two_tenants_may_have_one_idempotency_key(guarded: Stack, tenants: Tenants) -> None:
    """X1: a key of another's is not a key that was used."""
    headers = {"idempotency-key": str(uuid4())}
    made = []
    for wire in (tenants.others, tenants.mine):
        model = guarded.plays(say(text("ok")))
        async with wire.open(headers=headers, model=model, stream=False) as reading:
            await reading.rest()
        assert reading.status == 200
        made.append(reading.json["id"])
    assert made[0] != made[1]


async def test_a_tenant_works_as_it_would_alone(guarded: Stack, tenants: Tenants) -> None:
    """X2: what is one's own is found, continued and deleted, with another token of the same tenant."""
    first = await tenants.mine.create(model=guarded.plays(say(text("one"))))
    second = await tenants.mine.create(
        model=guarded.plays(say(text("two"))), previous_response_id=first.response["id"]
    )
    assert (await tenants.mine.get(second.response["id"])).json == second.response
    deleted = await tenants.mine.ask("DELETE", f"{RESPONSES}/{second.response['id']}")
    assert deleted.status == 200


# -- tokens that are none ------------------------------------------------------------------------------

Forge = Callable[[Issuer], Mapping[str, str]]
REFUSED: Mapping[str, tuple[str, Forge]] = {
    "no token": ("missing_identity", lambda issuer: {}),
    "another scheme": ("missing_identity", lambda issuer: {"authorization": "Basic YTpi"}),
    "no JWT": ("invalid_token", lambda issuer: bearer("sk-a-key")),
    "expired": ("invalid_token", lambda issuer: bearer(issuer.token("a", exp=1_700_000_000))),
    "without expiry": ("invalid_token", lambda issuer: bearer(issuer.token("a", exp=None))),
    "not valid yet": ("invalid_token", lambda issuer: bearer(issuer.token("a", nbf=4_000_000_000))),
    "unsigned": ("invalid_token", lambda issuer: bearer(issuer.unsigned("a"))),
    "another's key": ("invalid_token", lambda issuer: bearer(Issuer(issuer.name).token("a"))),
    "a public key as secret": (
        "invalid_token",
        lambda issuer: bearer(issuer.signed_with_the_public_key("a")),
    ),
    "altered": ("invalid_token", lambda issuer: bearer(altered(issuer.token("a"), sub="b"))),
    "another audience": ("invalid_token", lambda issuer: bearer(issuer.token("a", aud="other"))),
    "no audience": ("invalid_token", lambda issuer: bearer(issuer.token("a", aud=None))),
    "another issuer": ("invalid_token", lambda issuer: bearer(issuer.token("a", iss="https://x"))),
    "no tenant": ("missing_identity", lambda issuer: bearer(issuer.token(None))),
    "an empty tenant": ("missing_identity", lambda issuer: bearer(issuer.token(""))),
    "a number": ("invalid_token", lambda issuer: bearer(issuer.token("a", sub=7))),
    "a list": ("invalid_token", lambda issuer: bearer(issuer.token("a", sub=["a", "b"]))),
    "a tenant by another header": (
        "missing_identity",
        lambda issuer: {"x-holdfast-tenant": "a", "x-tenant": "a", "x-jwt-payload": "eyJzdWIiOiJhIn0"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("code", "forge"), REFUSED.values(), ids=REFUSED.keys())
async def test_without_a_token_that_holds_nothing_is_answered(
    guarded: Stack, tenants: Tenants, issuer: Issuer, code: str, forge: Forge
) -> None:
    """X2: on each route, ours or the model's or nobody's, by Envoy itself, in the shape of the API."""
    before = await guarded.ext_proc_streams()
    model = guarded.plays(say(text("never")))
    body = {"model": model, "input": "hi", "messages": [{"role": "user", "content": "hi"}]}
    async with speaking(guarded, forge(issuer)) as wire:
        answers = [
            await wire.ask("POST", RESPONSES, json=body),
            await wire.ask("POST", RESPONSES, json={**body, "stream": True}),
            await wire.ask("GET", RESPONSES),
            await wire.ask("GET", f"{RESPONSES}/{tenants.mine_id}"),
            await wire.ask("PUT", f"{RESPONSES}/x/y"),
            await wire.ask("POST", "/v1/chat/completions", json=body),
            await wire.ask("GET", "/v1/models"),
            await wire.ask("GET", "/"),
        ]
    for answer in answers:
        assert answer.status == 401
        assert answer.error["type"] == "invalid_request_error"
        assert answer.error["code"] == code
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert guarded.asked(model) == []
    assert await guarded.ext_proc_streams() == before


async def test_a_tenant_that_cannot_be_kept_is_refused(guarded: Stack, issuer: Issuer) -> None:
    """X2: longer than any store keeps; the sidecar judges it, at the head of the request."""
    async with speaking(guarded, bearer(issuer.token("x" * 513))) as wire:
        answer = await wire.ask("POST", RESPONSES, json={"model": "demo", "input": "hi"})
    assert answer.status == 401
    assert answer.error["code"] == "missing_identity"
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_token_in_the_query_is_none(guarded: Stack, issuer: Issuer) -> None:
    """X4: it would be in every log on the way."""
    token = issuer.token("a")
    async with speaking(guarded, {}) as wire:
        answer = await wire.ask("GET", f"{RESPONSES}?access_token={token}")
    assert answer.status == 401
    assert answer.error["code"] == "missing_identity"


async def test_no_header_or_field_of_a_clients_changes_whose_it_is(
    guarded: Stack, tenants: Tenants, issuer: Issuer
) -> None:
    """X2: identity is the token's alone."""
    model = guarded.plays(say(text("ok")))
    said = {"user": "other", "metadata": {"tenant": "other"}, "safety_identifier": "other"}
    headers = {"x-holdfast-tenant": "other", "X-HOLDFAST-TENANT": "other", "x-tenant": "other"}
    async with speaking(guarded, bearer(issuer.token("other"))) as other:
        async with tenants.mine.open(headers=headers, model=model, stream=False, **said) as seen:
            await seen.rest()
        made = seen.json["id"]
        assert (await other.get(made)).status == 404
    assert (await tenants.mine.get(made)).status == 200


async def test_two_tokens_are_not_one_of_them(guarded: Stack, issuer: Issuer) -> None:
    """X2: nobody decides which of two identities is meant."""
    headers = [("authorization", f"Bearer {issuer.token(name)}") for name in ("a", "b")]
    async with speaking(guarded, {}) as wire:
        answer = await wire.ask("GET", RESPONSES, headers=headers)
    assert answer.status == 401


@pytest.mark.parametrize("path", ["/v1/chat/completions", RESPONSES])
async def test_the_token_does_not_reach_the_model_server(
    guarded: Stack, issuer: Issuer, path: str
) -> None:
    """X4: it opens this gateway, and is nobody else's to hold."""
    model = guarded.plays(say(text("ok")))
    body = {"model": model, "input": "x", "messages": [{"role": "user", "content": "x"}]}
    del body["messages" if path == RESPONSES else "input"]
    token = issuer.token("somebody")
    async with speaking(guarded, bearer(token)) as wire:
        assert (await wire.ask("POST", path, json=body)).status == 200
    received = guarded.asked(model)[0]
    assert token not in f"{received.headers} {received.body!r}"
    assert not any(token in line for line in guarded.said)


async def test_the_official_sdk_tells_a_refused_token(guarded: Stack, issuer: Issuer) -> None:
    """R15: as the error that its users catch; with a good one it works."""
    model = guarded.plays(say(text("hello")))
    async with openai.AsyncOpenAI(
        base_url=f"{guarded.url}/v1", api_key=issuer.token("a", exp=1_700_000_000), max_retries=0
    ) as sdk:
        with pytest.raises(openai.AuthenticationError) as caught:
            await sdk.responses.create(model=model, input="hi")
        assert caught.value.code == "invalid_token"
        with pytest.raises(openai.AuthenticationError):
            await sdk.models.list()
        good = sdk.with_options(api_key=issuer.token("a"))
        assert (await good.responses.create(model=model, input="hi")).output_text == "hello"


# -- without ext_proc ----------------------------------------------------------------------------------


async def test_over_http_nobodys_request_is_refused_on_every_route(
    believed: Stack, tenants_over_http: Tenants
) -> None:
    """X2: by the worker itself; one that says twice whose it is is nobody's."""
    model = believed.plays(say(text("never")))
    body = {"model": model, "input": "hi"}
    twice = [("x-tenant", "a"), ("x-tenant", "a")]
    async with speaking(believed, {}) as wire:
        answers = [
            await wire.ask("POST", RESPONSES, json=body),
            await wire.ask("POST", RESPONSES, json=body, headers=twice),
            await wire.ask("POST", RESPONSES, json=body, headers={"x-holdfast-tenant": "a"}),
            await wire.ask("GET", f"{RESPONSES}/{tenants_over_http.mine_id}"),
            await wire.ask("GET", f"{RESPONSES}/{tenants_over_http.mine_id}?stream=true"),
            await wire.ask("PUT", f"{RESPONSES}/x/y"),
            await wire.ask("GET", "/v1/models"),
        ]
        health = await wire.ask("GET", "/health")
    assert [(answer.status, answer.error["code"]) for answer in answers] == [
        (401, "missing_identity")
    ] * len(answers)
    assert believed.asked(model) == []
    assert health.json == {"status": "serving"}
