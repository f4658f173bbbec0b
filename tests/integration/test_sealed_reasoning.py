"""Reasoning that clients keep, as Codex asks for it: nothing stored here, thoughts sealed (rules M4, X4)."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.support.replies import reasoning, say, text
from tests.support.stack import Stack


async def test_thoughts_come_back_sealed_through_any_worker(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """M4: each of several turns, streamed, is sent all thoughts of those before it."""
    model = stack.plays(say(reasoning("Let me think"), text("42")))
    history: list[Any] = [{"role": "user", "content": "what?"}]
    for turn in range(4):
        async with client.responses.stream(
            model=model,
            input=history,
            store=False,
            include=["reasoning.encrypted_content"],
            prompt_cache_key="codex",
        ) as events:
            response = await events.get_final_response()
        thought, answer = response.output
        assert thought.type == "reasoning"
        assert thought.encrypted_content
        kept = {
            "type": "reasoning",
            "summary": [],
            "encrypted_content": thought.encrypted_content,
        }
        history += [kept, {"role": "assistant", "content": response.output_text}]
        history.append({"role": "user", "content": f"and {turn}?"})
        assert answer.type == "message"

    last = stack.asked(model)[-1].json["input"]
    thoughts = [item for item in last if item.get("type") == "reasoning"]
    assert [item["content"][0]["text"] for item in thoughts] == ["Let me think"] * 3


async def test_what_others_sealed_is_refused(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """X4: OpenAI's own, say."""
    foreign: Any = {"type": "reasoning", "summary": [], "encrypted_content": "gAAAAABo"}
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(
            model="demo", input=[{"role": "user", "content": "hi"}, foreign], store=False
        )
    assert refused.value.code == "invalid_encrypted_content"
    assert refused.value.param == "input[1].encrypted_content"
