"""Method and path to operation: the one table that every adapter reads."""

from __future__ import annotations

from enum import Enum
from urllib.parse import unquote

import msgspec

from engine.errors import MethodNotAllowed, NotFound


class Operation(Enum):
    """What can be asked of us."""

    CREATE = "create"
    LIST = "list"
    RETRIEVE = "retrieve"
    DELETE = "delete"
    CANCEL = "cancel"
    COMPACT = "compact"
    COUNT_TOKENS = "count_tokens"
    INPUT_ITEMS = "input_items"
    CREATE_CONVERSATION = "create_conversation"
    LIST_CONVERSATIONS = "list_conversations"
    RETRIEVE_CONVERSATION = "retrieve_conversation"
    UPDATE_CONVERSATION = "update_conversation"
    DELETE_CONVERSATION = "delete_conversation"
    ADD_ITEMS = "add_items"
    LIST_ITEMS = "list_items"
    RETRIEVE_ITEM = "retrieve_item"
    DELETE_ITEM = "delete_item"
    CREATE_CONNECTOR = "create_connector"
    LIST_CONNECTORS = "list_connectors"
    RETRIEVE_CONNECTOR = "retrieve_connector"
    UPDATE_CONNECTOR = "update_connector"
    DELETE_CONNECTOR = "delete_connector"
    CONNECTOR_TOOLS = "connector_tools"
    CREATE_PROMPT = "create_prompt"
    LIST_PROMPTS = "list_prompts"
    RETRIEVE_PROMPT = "retrieve_prompt"
    UPDATE_PROMPT = "update_prompt"
    DELETE_PROMPT = "delete_prompt"
    ADD_PROMPT_VERSION = "add_prompt_version"
    PROMPT_VERSIONS = "prompt_versions"
    CREATE_FILE = "create_file"
    LIST_FILES = "list_files"
    RETRIEVE_FILE = "retrieve_file"
    DELETE_FILE = "delete_file"
    FILE_CONTENT = "file_content"
    CREATE_UPLOAD = "create_upload"
    ADD_UPLOAD_PART = "add_upload_part"
    COMPLETE_UPLOAD = "complete_upload"
    CANCEL_UPLOAD = "cancel_upload"
    CREATE_VECTOR_STORE = "create_vector_store"
    LIST_VECTOR_STORES = "list_vector_stores"
    RETRIEVE_VECTOR_STORE = "retrieve_vector_store"
    UPDATE_VECTOR_STORE = "update_vector_store"
    DELETE_VECTOR_STORE = "delete_vector_store"
    SEARCH_VECTOR_STORE = "search_vector_store"
    ATTACH_FILE = "attach_file"
    LIST_ATTACHED = "list_attached"
    RETRIEVE_ATTACHED = "retrieve_attached"
    LABEL_ATTACHED = "label_attached"
    DETACH_FILE = "detach_file"
    ATTACHED_CONTENT = "attached_content"
    CREATE_BATCH = "create_batch"
    RETRIEVE_BATCH = "retrieve_batch"
    CANCEL_BATCH = "cancel_batch"
    BATCH_FILES = "batch_files"


_WITH_BODY = frozenset(
    (
        Operation.CREATE,
        Operation.COMPACT,
        Operation.COUNT_TOKENS,
        Operation.CREATE_CONVERSATION,
        Operation.UPDATE_CONVERSATION,
        Operation.ADD_ITEMS,
        Operation.CREATE_CONNECTOR,
        Operation.UPDATE_CONNECTOR,
        Operation.CREATE_PROMPT,
        Operation.UPDATE_PROMPT,
        Operation.ADD_PROMPT_VERSION,
        Operation.CREATE_UPLOAD,
        Operation.COMPLETE_UPLOAD,
        Operation.CREATE_VECTOR_STORE,
        Operation.UPDATE_VECTOR_STORE,
        Operation.SEARCH_VECTOR_STORE,
        Operation.ATTACH_FILE,
        Operation.LABEL_ATTACHED,
        Operation.CREATE_BATCH,
    )
)

_WITH_FORM = frozenset((Operation.CREATE_FILE, Operation.ADD_UPLOAD_PART))


class Match(msgspec.Struct, frozen=True):
    """An operation and what the path and query say of it.

    `id` is empty where the path has none, and so is `item`, the second id of some paths.
    """

    operation: Operation
    id: str
    query: str
    item: str = ""

    @property
    def takes_form(self) -> bool:
        """True if the operation reads a form as it arrives."""
        return self.operation in _WITH_FORM

    @property
    def takes_body(self) -> bool:
        """True if the operation reads the request's body."""
        return self.operation in _WITH_BODY


# (method, segments after /v1; None stands for an id)
ROUTES: tuple[tuple[str, tuple[str | None, ...], Operation], ...] = (
    ("POST", ("responses",), Operation.CREATE),
    ("GET", ("responses",), Operation.LIST),
    ("POST", ("responses", "compact"), Operation.COMPACT),
    ("POST", ("responses", "input_tokens"), Operation.COUNT_TOKENS),
    ("GET", ("responses", None), Operation.RETRIEVE),
    ("DELETE", ("responses", None), Operation.DELETE),
    ("POST", ("responses", None, "cancel"), Operation.CANCEL),
    ("GET", ("responses", None, "input_items"), Operation.INPUT_ITEMS),
    ("POST", ("conversations",), Operation.CREATE_CONVERSATION),
    ("GET", ("conversations",), Operation.LIST_CONVERSATIONS),
    ("GET", ("conversations", None), Operation.RETRIEVE_CONVERSATION),
    ("POST", ("conversations", None), Operation.UPDATE_CONVERSATION),
    ("DELETE", ("conversations", None), Operation.DELETE_CONVERSATION),
    ("POST", ("conversations", None, "items"), Operation.ADD_ITEMS),
    ("GET", ("conversations", None, "items"), Operation.LIST_ITEMS),
    ("GET", ("conversations", None, "items", None), Operation.RETRIEVE_ITEM),
    ("DELETE", ("conversations", None, "items", None), Operation.DELETE_ITEM),
    ("POST", ("connectors",), Operation.CREATE_CONNECTOR),
    ("GET", ("connectors",), Operation.LIST_CONNECTORS),
    ("GET", ("connectors", None), Operation.RETRIEVE_CONNECTOR),
    ("POST", ("connectors", None), Operation.UPDATE_CONNECTOR),
    ("DELETE", ("connectors", None), Operation.DELETE_CONNECTOR),
    ("GET", ("connectors", None, "tools"), Operation.CONNECTOR_TOOLS),
    ("POST", ("prompts",), Operation.CREATE_PROMPT),
    ("GET", ("prompts",), Operation.LIST_PROMPTS),
    ("GET", ("prompts", None), Operation.RETRIEVE_PROMPT),
    ("POST", ("prompts", None), Operation.UPDATE_PROMPT),
    ("DELETE", ("prompts", None), Operation.DELETE_PROMPT),
    ("POST", ("prompts", None, "versions"), Operation.ADD_PROMPT_VERSION),
    ("GET", ("prompts", None, "versions"), Operation.PROMPT_VERSIONS),
    ("POST", ("files",), Operation.CREATE_FILE),
    ("GET", ("files",), Operation.LIST_FILES),
    ("GET", ("files", None), Operation.RETRIEVE_FILE),
    ("DELETE", ("files", None), Operation.DELETE_FILE),
    ("GET", ("files", None, "content"), Operation.FILE_CONTENT),
    ("POST", ("uploads",), Operation.CREATE_UPLOAD),
    ("POST", ("uploads", None, "parts"), Operation.ADD_UPLOAD_PART),
    ("POST", ("uploads", None, "complete"), Operation.COMPLETE_UPLOAD),
    ("POST", ("uploads", None, "cancel"), Operation.CANCEL_UPLOAD),
    ("POST", ("vector_stores",), Operation.CREATE_VECTOR_STORE),
    ("GET", ("vector_stores",), Operation.LIST_VECTOR_STORES),
    ("GET", ("vector_stores", None), Operation.RETRIEVE_VECTOR_STORE),
    ("POST", ("vector_stores", None), Operation.UPDATE_VECTOR_STORE),
    ("DELETE", ("vector_stores", None), Operation.DELETE_VECTOR_STORE),
    ("POST", ("vector_stores", None, "search"), Operation.SEARCH_VECTOR_STORE),
    ("POST", ("vector_stores", None, "files"), Operation.ATTACH_FILE),
    ("GET", ("vector_stores", None, "files"), Operation.LIST_ATTACHED),
    ("GET", ("vector_stores", None, "files", None), Operation.RETRIEVE_ATTACHED),
    ("POST", ("vector_stores", None, "files", None), Operation.LABEL_ATTACHED),
    ("DELETE", ("vector_stores", None, "files", None), Operation.DETACH_FILE),
    ("GET", ("vector_stores", None, "files", None, "content"), Operation.ATTACHED_CONTENT),
    ("POST", ("vector_stores", None, "file_batches"), Operation.CREATE_BATCH),
    ("GET", ("vector_stores", None, "file_batches", None), Operation.RETRIEVE_BATCH),
    ("POST", ("vector_stores", None, "file_batches", None, "cancel"), Operation.CANCEL_BATCH),
    ("GET", ("vector_stores", None, "file_batches", None, "files"), Operation.BATCH_FILES),
)


def find(method: str, target: str) -> Match:
    """Return the operation for a method and a request target; raises NotFound or MethodNotAllowed."""
    path, _, query = target.partition("?")
    segments = path.split("/")[1:]
    allowed = []
    if segments[:1] == ["v1"]:
        for route_method, pattern, operation in ROUTES:
            if not _fits(pattern, segments[1:]):
                continue
            if route_method == method:
                ids = [unquote(s) for p, s in zip(pattern, segments[1:], strict=True) if p is None]
                first, second, *_ = [*ids, "", ""]
                return Match(operation, first, query, second)
            allowed.append(route_method)
    if allowed:
        raise MethodNotAllowed(
            f"{method} is not allowed on {path}; use {', '.join(allowed)}.", allowed
        )
    raise NotFound(f"Unknown path: {method} {path}.", code="unknown_url")


def _fits(pattern: tuple[str | None, ...], segments: list[str]) -> bool:
    return len(pattern) == len(segments) and all(
        segment if expected is None else segment == expected
        for expected, segment in zip(pattern, segments, strict=True)
    )
