"""`extproc.routes`: method and path to operation."""

from __future__ import annotations

import pytest

from engine.errors import MethodNotAllowed, NotFound
from extproc.routes import Operation, find


@pytest.mark.parametrize(
    ("method", "target", "operation", "wanted", "query"),
    [
        ("POST", "/v1/responses", Operation.CREATE, "", ""),
        ("POST", "/v1/responses?x=1", Operation.CREATE, "", "x=1"),
        ("GET", "/v1/responses?limit=2&after=a", Operation.LIST, "", "limit=2&after=a"),
        ("GET", "/v1/responses/resp_1", Operation.RETRIEVE, "resp_1", ""),
        ("GET", "/v1/responses/resp_1?include%5B%5D=a", Operation.RETRIEVE, "resp_1", "include%5B%5D=a"),
        ("GET", "/v1/responses/a?b?c", Operation.RETRIEVE, "a", "b?c"),
        ("DELETE", "/v1/responses/resp_1", Operation.DELETE, "resp_1", ""),
        ("POST", "/v1/responses/resp_1/cancel", Operation.CANCEL, "resp_1", ""),
        ("GET", "/v1/responses/resp_1/input_items", Operation.INPUT_ITEMS, "resp_1", ""),
        ("GET", "/v1/responses/a%20b", Operation.RETRIEVE, "a b", ""),
        ("GET", "/v1/responses/a%2Fb", Operation.RETRIEVE, "a/b", ""),
        ("GET", "/v1/responses/%00", Operation.RETRIEVE, "\0", ""),
        ("GET", "/v1/responses/%ff", Operation.RETRIEVE, "\ufffd", ""),
        ("GET", "/v1/responses/cancel", Operation.RETRIEVE, "cancel", ""),
        ("POST", "/v1/conversations", Operation.CREATE_CONVERSATION, "", ""),
        ("GET", "/v1/conversations?limit=1", Operation.LIST_CONVERSATIONS, "", "limit=1"),
        ("GET", "/v1/conversations/conv_1", Operation.RETRIEVE_CONVERSATION, "conv_1", ""),
        ("POST", "/v1/conversations/conv_1", Operation.UPDATE_CONVERSATION, "conv_1", ""),
        ("DELETE", "/v1/conversations/conv_1", Operation.DELETE_CONVERSATION, "conv_1", ""),
        ("POST", "/v1/conversations/c/items?include=a", Operation.ADD_ITEMS, "c", "include=a"),
        ("GET", "/v1/conversations/c/items?limit=2", Operation.LIST_ITEMS, "c", "limit=2"),
        ("GET", "/v1/conversations/c/items/i", Operation.RETRIEVE_ITEM, "c", ""),
        ("DELETE", "/v1/conversations/c%20d/items/i", Operation.DELETE_ITEM, "c d", ""),
        ("POST", "/v1/connectors", Operation.CREATE_CONNECTOR, "", ""),
        ("GET", "/v1/connectors?limit=1", Operation.LIST_CONNECTORS, "", "limit=1"),
        ("GET", "/v1/connectors/conn_1", Operation.RETRIEVE_CONNECTOR, "conn_1", ""),
        ("POST", "/v1/responses/compact", Operation.COMPACT, "", ""),
        ("POST", "/v1/responses/input_tokens", Operation.COUNT_TOKENS, "", ""),
        ("POST", "/v1/connectors/conn_1", Operation.UPDATE_CONNECTOR, "conn_1", ""),
        ("DELETE", "/v1/connectors/conn_1", Operation.DELETE_CONNECTOR, "conn_1", ""),
        ("GET", "/v1/connectors/conn_1/tools", Operation.CONNECTOR_TOOLS, "conn_1", ""),
    ],
)  # fmt: skip
def test_a_path_is_an_operation(
    method: str, target: str, operation: Operation, wanted: str, query: str
) -> None:
    """With its id, decoded, and its query, not decoded."""
    match = find(method, target)
    assert (match.operation, match.id, match.query) == (operation, wanted, query)
    assert match.takes_body == (method == "POST" and operation is not Operation.CANCEL)


def test_an_item_of_a_conversation_has_two_ids() -> None:
    """Both decoded."""
    match = find("GET", "/v1/conversations/a%20b/items/c%2Fd")
    assert (match.id, match.item) == ("a b", "c/d")


@pytest.mark.parametrize(
    "target",
    [
        "/", "", "*", "/v1", "/v1/", "/responses", "/v2/responses", "/v1/responses/",
        "/v1/responses//input_items", "/v1/responses/a/b", "/v1/responses/a/cancel/",
        "/v1/models", "/v1/connectors/", "/v1/connectors/a/b", "/v1/prompts/", "/v1/prompts/a/b",
        "//v1/responses", "/V1/responses", "/v1/responses/a/input_items/b",
        "/v1/conversations/", "/v1/conversations//items", "/v1/conversations/c/items/i/x",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_a_404(method: str, target: str) -> None:
    """Whatever the method."""
    with pytest.raises(NotFound) as caught:
        find(method, target)
    assert caught.value.code == "unknown_url"


@pytest.mark.parametrize(
    ("method", "target", "others"),
    [
        ("PUT", "/v1/responses", "POST, GET"),
        ("DELETE", "/v1/responses", "POST, GET"),
        ("POST", "/v1/responses/resp_1", "GET, DELETE"),
        ("GET", "/v1/responses/resp_1/cancel", "POST"),
        ("POST", "/v1/responses/resp_1/input_items", "GET"),
        ("HEAD", "/v1/responses/resp_1", "GET, DELETE"),
        ("post", "/v1/responses", "POST, GET"),
        ("", "/v1/responses", "POST, GET"),
        ("PATCH", "/v1/connectors/conn_1", "GET, POST, DELETE"),
        ("POST", "/v1/connectors/conn_1/tools", "GET"),
    ],
)
def test_a_wrong_method_is_a_405_that_names_the_right_ones(
    method: str, target: str, others: str
) -> None:
    """The path exists."""
    with pytest.raises(MethodNotAllowed, match=others):
        find(method, target)
