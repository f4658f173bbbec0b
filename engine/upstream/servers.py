"""What is known of the model servers that people run: how each is asked best, what it does not take. Pure.

An optimisation only: a server's answers are read in the same way whoever it claims to be, and one that is
not known is asked in the way that all of them understand.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")

REASONING_KEY = "reasoning_content"
"""Where most servers read an assistant's reasoning (vLLM, SGLang, llama.cpp, LM Studio, DeepSeek).

Those that do not know it pass over it."""

_RESPONSES_SINCE = (0, 27)


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of server. `dialect` is the safest one; in chat, `reasoning_key` is where it reads thoughts.

    `takes` are the fields of a chat request that it honours; None: all that we know of, or it says so
    itself. Fields that are not among them are ignored by it in silence, or refused (rule H1).
    `typed_messages`: its `/v1/responses` takes what a model said only as a typed message with typed parts;
    there `tells_cuts` is false if an answer that its limit has cut is called completed, and `formats` if
    `text.format` is passed over.
    """

    name: str
    dialect: str = "chat"
    reasoning_key: str | None = REASONING_KEY
    takes: frozenset[str] | None = None
    typed_messages: bool = False
    tells_cuts: bool = True
    formats: bool = True


# Of every server: what a request without any wishes has.
_BARE = frozenset({"model", "messages", "stream", "tools", "max_tokens"})

UNKNOWN = Server(name="unknown")
SERVERS: dict[str, Server] = {
    server.name: server
    for server in (
        UNKNOWN,
        Server(name="vllm", dialect="responses"),
        # Its own /v1/responses ignores the tools of all models but gpt-oss.
        Server(name="sglang"),
        Server(name="llamacpp", typed_messages=True, tells_cuts=False, formats=False),
        # /v1/responses: text before a call is not in the final object, and streams end without one.
        Server(
            name="ollama",
            reasoning_key="reasoning",
            takes=_BARE
            | {
                "frequency_penalty", "logprobs", "presence_penalty", "reasoning_effort",
                "response_format", "seed", "stop", "stream_options", "temperature", "top_logprobs",
                "top_p",
            },
        ),
        # Other fields get a 422 or nothing at all, as its release will have it.
        Server(
            name="transformers",
            reasoning_key=None,
            tells_cuts=False,
            formats=False,
            takes=_BARE
            | {"frequency_penalty", "logit_bias", "seed", "stop", "temperature", "top_p"},
        ),
        Server(name="lmstudio"),
        Server(name="openrouter", reasoning_key="reasoning"),
    )
}  # fmt: skip
"""By the names that the settings call them."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What a server has shown itself to be."""

    server: Server = UNKNOWN
    version: tuple[int, ...] = ()

    @property
    def dialect(self) -> str:
        """The dialect that is safest.

        vLLM before 0.27: streamed calls are text or come apart, penalties are ignored, `json_object` is
        not known, gpt-oss takes no `tool_choice`; its chat completions have none of these faults.
        """
        if self.server.name == "vllm" and self.version < _RESPONSES_SINCE:
            return "chat"
        return self.server.dialect

    def __str__(self) -> str:
        return f"{self.server.name} {'.'.join(map(str, self.version))}".strip()


class _Version(msgspec.Struct):
    version: str = ""


class _Model(msgspec.Struct):
    id: str = ""
    owned_by: str | None = None
    max_model_len: int | None = None
    context_length: int | None = None
    architecture: dict[str, object] | None = None


class _Models(msgspec.Struct):
    data: list[_Model] = []


_OWNERS = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llamacpp": "llamacpp",
    "library": "ollama",
    "organization_owner": "lmstudio",
}


def recognise(version: bytes, models: bytes) -> Profile:
    """Return whose answers to `GET /version` and `GET /v1/models` these are; anything else is unknown."""
    told = _read(version, _Version).version
    listed = _read(models, _Models).data
    name = next((_OWNERS[m.owned_by] for m in listed if m.owned_by in _OWNERS), None)
    if name is None and told and any(model.max_model_len for model in listed):
        # A fork, or a proxy's own name for its models.
        name = "vllm"
    if name is None and any(m.architecture and m.context_length for m in listed):
        name = "openrouter"
    return Profile(server=SERVERS[name or UNKNOWN.name], version=_numbers(told))


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of `0.21.0rc1+cu129`; none where there are none."""
    numbers = []
    for part in version.removeprefix("v").split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part[:9]))
    return tuple(numbers[:3])


def _read(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return kind()
