"""How both wires are read into one ask."""

from __future__ import annotations

from extproc.demo.ask import from_chat, from_responses

CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "42"}


def test_a_string_input_is_one_user_turn() -> None:
    """The short form of the API."""
    assert from_responses({"input": "hi there"}).user_texts == ("hi there",)


def test_calls_and_outputs_count_since_the_last_user_message_only() -> None:
    """A tool called for an earlier question may be called again for a new one."""
    past = [{"role": "user", "content": "a"}, CALL, OUTPUT]
    assert from_responses({"input": past}).outputs == ("42",)
    asked = from_responses({"input": [*past, {"role": "user", "content": "b"}]})
    assert (asked.user_texts, asked.called, asked.outputs) == (("a", "b"), (), ())


def test_chat_and_responses_read_alike() -> None:
    """The same conversation on either wire gives the same ask, but for its token count."""
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "42"},
    ]
    function = {"name": "f", "parameters": {"type": "object"}}
    chat = from_chat({"messages": messages, "tools": [{"type": "function", "function": function}]})
    items = [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}, CALL, OUTPUT]
    assert chat == from_responses({"input": items, "tools": [{"type": "function", **function}]})


def test_hosted_tools_are_not_shown_to_the_model() -> None:
    """vLLM accepts them and says nothing."""
    tools = [{"type": "file_search"}, {"type": "function", "name": "f"}]
    asked = from_responses({"input": "hi", "tools": tools})
    assert [tool.name for tool in asked.tools] == ["f"]


def test_the_message_or_the_effort_asks_for_reasoning() -> None:
    """An effort of none wins over the message."""
    assert from_responses({"input": "hi", "reasoning": {"effort": "low"}}).think
    assert from_responses({"input": "please think hard"}).think
    assert not from_responses({"input": "think", "reasoning": {"effort": "none"}}).think
    assert not from_responses({"input": "hi", "reasoning": None}).think


def test_input_tokens_grow_with_the_input() -> None:
    """Usage of a second turn is larger than of the first."""
    short = from_responses({"input": "hi"}).input_tokens
    longer = from_responses({"input": "hi you", "instructions": "be brief"}).input_tokens
    assert 0 < short < longer


def test_allowed_tools_is_opaque_and_a_function_choice_is_forced() -> None:
    """As vLLM treats the two."""
    allowed = {"type": "allowed_tools", "mode": "required", "tools": []}
    assert from_responses({"input": "hi", "tool_choice": allowed}).choice == "auto"
    named = from_responses({"input": "hi", "tool_choice": {"type": "function", "name": "f"}})
    assert (named.choice, named.forced) == ("named", "f")


def test_logprobs_are_asked_for_by_include_and_sized_by_top_logprobs() -> None:
    """None, none beside the token, and some."""
    wanted = {"input": "hi", "include": ["message.output_text.logprobs"]}
    assert from_responses({"input": "hi", "top_logprobs": 3}).logprobs is None
    assert from_responses(wanted).logprobs == 0
    assert from_responses({**wanted, "top_logprobs": 3}).logprobs == 3


def test_chat_reads_its_own_spelling_of_limits_and_formats() -> None:
    """max_tokens, response_format and logprobs are named otherwise on chat."""
    asked = from_chat(
        {
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": 7,
            "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "null"}}},
            "logprobs": True,
            "tool_choice": {"type": "function", "function": {"name": "f"}},
        }
    )
    assert (asked.max_tokens, asked.logprobs, asked.forced) == (7, 0, "f")
    assert asked.format == {"type": "json_schema", "schema": {"type": "null"}}
