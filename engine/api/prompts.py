"""Prompts as a client manages them, and `prompt` as a request names one: bodies checked, objects shown.

A template is a create request without what belongs to one run: `instructions` (a string, or messages), model,
tools, text, reasoning, limits. `{{name}}` in the instructions stands for a variable. What a template says is
checked when it is written, by the very checks of a request, with examples for the variables.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.api import checks
from engine.api.json import encode, read_object, read_value
from engine.api.ownership import ToolPolicy
from engine.api.request import Fields, parse_create
from engine.context.template import Value, merge, placeholders, render
from engine.errors import InvalidRequest
from engine.ids import ItemIds
from engine.limits import Limits
from engine.ports import StoredPrompt

_KINDS = ("text", "image", "file")
_VARIABLE = checks.matching(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_NAME = checks.string_up_to(256)
_VERSION = checks.matching(r"[1-9][0-9]{0,8}")
_MOST_VARIABLES = 64
# Of one run, or of one client: a template says nothing of these.
_NOT_IN_TEMPLATES = (
    "input", "prompt", "previous_response_id", "conversation", "stream", "stream_options", "store",
    "background", "user", "safety_identifier", "client_metadata",
)  # fmt: skip
_SECRETS = ("authorization", "headers")
_EXAMPLES: Mapping[str, Value] = {
    "text": "text",
    "image": {"type": "input_image", "image_url": "https://images.example/1.png"},
    # What is done with a file is the request's matter: a text stands for it here.
    "file": {"type": "input_text", "text": "file"},
}


class Variable(msgspec.Struct, frozen=True, omit_defaults=True, rename={"kind": "type"}):
    """A variable: `kind` is text, image or file; a text's `default` makes it optional."""

    kind: str
    default: str | None = None
    description: str | None = None


class Body(msgspec.Struct, frozen=True):
    """What one version consists of."""

    template: dict[str, object]
    variables: dict[str, Variable]


class Head(msgspec.Struct, frozen=True):
    """What the versions of a prompt share."""

    name: str | None = None
    metadata: dict[str, object] = {}


class Wanted(msgspec.Struct, frozen=True):
    """A prompt as a request names it; `version` None is the default one."""

    id: str
    version: int | None
    variables: dict[str, object]


read_body = msgspec.json.Decoder(Body).decode
read_head = msgspec.json.Decoder(Head).decode


def parse_new(body: bytes, limits: Limits, policy: ToolPolicy) -> tuple[Head, Body]:
    """Check the body of `POST /v1/prompts`; raises InvalidRequest."""
    fields = _fields(body, ("name", "metadata", "template", "variables"))
    return _head(fields, Head()), _body(fields, limits, policy)


def parse_new_version(body: bytes, limits: Limits, policy: ToolPolicy) -> tuple[Body, bool]:
    """Check the body of `POST /v1/prompts/{id}/versions`; the second is whether it becomes the default."""
    fields = _fields(body, ("default", "template", "variables"))
    default = fields.get("default")
    return _body(fields, limits, policy), default is None or checks.boolean(default, "default")


def parse_update(body: bytes) -> tuple[dict[str, object], int | None]:
    """Check the body of `POST /v1/prompts/{id}`; return what changes of the head, and the new default."""
    fields = _fields(body, ("name", "metadata", "default_version"), nulls=("name", "metadata"))
    wanted = fields.pop("default_version", None)
    return fields, None if wanted is None else parse_version(wanted, "default_version")


def updated(head: Head, changes: Mapping[str, object]) -> Head:
    """Return a head with changes that a client asked for; null removes."""
    shown: dict[str, object] = {"name": head.name, "metadata": head.metadata}
    return _head({**shown, **changes}, Head())


def parse_version(value: object, param: str) -> int:
    """Check a version's number: a string of digits, as the API writes it, or an integer."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return int(str(_VERSION(value, param)))


def parse_wanted(value: object) -> Wanted:
    """Check `prompt` of a create request."""
    prompt = checks.mapping(value, "prompt")
    checks.only_keys(prompt, ("id", "version", "variables"), "prompt")
    version, variables = prompt.get("version"), prompt.get("variables")
    return Wanted(
        id=checks.name(checks.required(prompt, "id", "prompt"), "prompt.id"),
        version=None if version is None else parse_version(version, "prompt.version"),
        variables={} if variables is None else checks.any_object(variables, "prompt.variables"),
    )


def expand(request: Fields, wanted: Wanted, found: StoredPrompt) -> Fields:
    """Return a request with its prompt in it, `prompt` naming the version that was used."""
    body = read_body(found.body)
    values = values_of(body.variables, wanted.variables, "prompt.variables")
    template = dict(body.template)
    if "instructions" in template:
        template["instructions"] = render(template["instructions"], values)
    given = {
        name: checks.anything(read_value(raw, name), name)
        for name, raw in request.items()
        if name != "input"
    }
    merged = merge(template, given)
    merged["prompt"] = {
        "id": found.id,
        "version": str(found.version),
        "variables": wanted.variables,
    }
    expanded = {name: msgspec.Raw(encode(value)) for name, value in merged.items()}
    return {**expanded, "input": request["input"]} if "input" in request else expanded


def shown(prompt: StoredPrompt) -> bytes:
    """Return the JSON of a prompt at a version."""
    head, body = read_head(prompt.head), read_body(prompt.body)
    return encode(
        {
            "id": prompt.id,
            "object": "prompt",
            "created_at": prompt.created_at,
            "name": head.name,
            "metadata": head.metadata,
            "default_version": str(prompt.default_version),
            **_version(prompt, body),
        }
    )


def shown_version(prompt: StoredPrompt) -> bytes:
    """Return the JSON of a prompt's version in a list of versions."""
    own = {"id": prompt.id, "object": "prompt.version"}
    return encode({**own, **_version(prompt, read_body(prompt.body))})


def _version(prompt: StoredPrompt, body: Body) -> dict[str, object]:
    return {
        "version": str(prompt.version),
        "version_created_at": prompt.version_created_at,
        "is_default": prompt.version == prompt.default_version,
        "template": body.template,
        "variables": body.variables,
    }


def _fields(body: bytes, known: tuple[str, ...], nulls: tuple[str, ...] = ()) -> dict[str, object]:
    fields = {name: read_value(raw, name) for name, raw in read_object(body).items()}
    for name, value in fields.items():
        if name not in known and value is not None:
            raise checks.unknown(name, known)
    return {name: value for name, value in fields.items() if value is not None or name in nulls}


def _head(fields: Mapping[str, object], head: Head) -> Head:
    name, metadata = fields.get("name"), fields.get("metadata")
    return Head(
        name=head.name if name is None else str(_NAME(name, "name")),
        metadata=head.metadata if metadata is None else checks.metadata(metadata, "metadata"),
    )


def _body(fields: Mapping[str, object], limits: Limits, policy: ToolPolicy) -> Body:
    template = checks.any_object(_required(fields, "template"), "template")
    template = {name: value for name, value in template.items() if value is not None}
    for name in _NOT_IN_TEMPLATES:
        if name in template:
            raise checks.unsupported(f"template.{name}", "it belongs to a request.")
    _refuse_secrets(template.get("tools"))
    used = {name: plain for name, _, plain in placeholders(template.get("instructions"))}
    body = Body(template, _variables(fields.get("variables"), used))
    for name, path, plain in placeholders(template.get("instructions")):
        _check_place(name, body.variables, f"template.{path}", plain=plain)
    _check_template(body, limits, policy)
    return body


def _required(fields: Mapping[str, object], name: str) -> object:
    if name not in fields:
        raise checks.missing(name)
    return fields[name]


def _refuse_secrets(tools: object) -> None:
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        for name in _SECRETS:
            if isinstance(tool, dict) and tool.get("type") == "mcp" and tool.get(name):
                raise checks.unsupported(
                    f"template.tools[{index}].{name}", "credentials are not kept in templates."
                )


def _variables(value: object, used: Mapping[str, bool]) -> dict[str, Variable]:
    """Return the declared variables; where none are declared, each placeholder is a text that is needed."""
    if value is None:
        return {name: Variable("text") for name in used}
    declared = checks.mapping(value, "variables")
    if len(declared) > _MOST_VARIABLES:
        raise checks.wrong_value(
            f"{len(declared)} variables", "variables", f"at most {_MOST_VARIABLES}"
        )
    return {name: _variable(name, entry) for name, entry in declared.items()}


def _variable(name: str, value: object) -> Variable:
    param = f"variables.{name}"
    _VARIABLE(name, param)
    entry = checks.mapping(value, param)
    checks.only_keys(entry, ("type", "default", "description"), param)
    given, default, about = (entry.get(key) for key in ("type", "default", "description"))
    kind = "text" if given is None else str(checks.one_of(*_KINDS)(given, f"{param}.type"))
    if default is not None and kind != "text":
        raise checks.unsupported(f"{param}.default", "only texts have one.")
    return Variable(
        kind,
        None if default is None else checks.string(default, f"{param}.default"),
        None if about is None else checks.string(about, f"{param}.description"),
    )


def _check_place(name: str, variables: Mapping[str, Variable], param: str, *, plain: bool) -> None:
    variable = variables.get(name)
    if variable is None:
        raise checks.wrong_value(name, param, "only names that 'variables' declares in {{ }}")
    if plain and variable.kind != "text":
        raise checks.wrong_value(
            name, param, "text variables here; images and files go into messages of a user"
        )


def _check_template(body: Body, limits: Limits, policy: ToolPolicy) -> None:
    """Check the template as the request that it will be part of."""
    examples = {name: _EXAMPLES[variable.kind] for name, variable in body.variables.items()}
    request = dict(body.template)
    if "instructions" in request:
        request["instructions"] = render(request["instructions"], examples)
    request.setdefault("model", "model")
    fields = read_object(encode({**request, "input": "input"}))
    try:
        parse_create(fields, ItemIds("resp_template"), limits, policy)
    except InvalidRequest as error:
        where = "template" if error.param is None else f"template.{error.param}"
        raise InvalidRequest(
            error.message.replace(f"'{error.param}", f"'{where}"), param=where, code=error.code
        ) from error


def values_of(
    variables: Mapping[str, Variable], given: Mapping[str, object], param: str
) -> dict[str, Value]:
    """Return the value of each variable; raises InvalidRequest for one that is missing or does not fit."""
    for name in given:
        if name not in variables:
            raise checks.unknown(f"{param}.{name}", variables)
    values: dict[str, Value] = {}
    for name, variable in variables.items():
        value = given.get(name)
        if value is None:
            value = variable.default
        if value is None:
            raise InvalidRequest(
                f"Missing prompt variable: '{name}'.",
                param=f"{param}.{name}",
                code="missing_required_parameter",
            )
        values[name] = _fitting(variable.kind, value, f"{param}.{name}")
    return values


def _fitting(kind: str, value: object, param: str) -> Value:
    if isinstance(value, str):
        if kind == "text":
            return value
        raise checks.wrong_value(value, param, f"an object of type 'input_{kind}'")
    part = checks.mapping(value, param)
    given = checks.string(checks.required(part, "type", param), f"{param}.type")
    if given != f"input_{kind}":
        raise checks.wrong_value(given, f"{param}.type", f"'input_{kind}'")
    if kind == "text":
        return checks.string(checks.required(part, "text", param), f"{param}.text")
    return part
