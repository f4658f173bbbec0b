"""A model server in the process that counts a token for each word, as vLLM's `/tokenize` does it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from engine.ports import ModelAnswer
from tests.support.fake_model import JSON, FakeModel, Head, Step


class CountingModel(FakeModel):
    """`context` is the most tokens that fit; `status` is what it answers a question for a count with."""

    def __init__(
        self, *steps: Step, turns: Any = (), status: int = 200, context: int = 160
    ) -> None:
        super().__init__(*steps, turns=turns)
        self.counted: list[Any] = []
        self._status = status
        self._context = context

    async def call(self, path: str, body: bytes, headers: Mapping[str, str]) -> ModelAnswer:
        """Count, or play the next turn."""
        if path != "/tokenize":
            return await super().call(path, body, headers)
        asked = json.loads(body)
        self.counted.append(asked)
        count = words_of(asked["messages"])
        told = {"count": count, "max_model_len": self._context, "tokens": [1] * count}
        answer = FakeModel(Head(self._status, JSON), json.dumps(told).encode())
        return await answer.call(path, body, headers)


def words_of(messages: list[Any]) -> int:
    """Return how many words the JSON of some messages has."""
    return sum(len(json.dumps(message).split()) for message in messages)


def words(count: int, word: str = "w") -> str:
    """Return a text of so many words."""
    return " ".join([word] * count)


def inputs(model: FakeModel, number: int = -1) -> list[Any]:
    """Return the input of a call of the model."""
    return list(json.loads(model.bodies[number])["input"])
