"""Every knob of Holdfast: one frozen tree, read once, by the command that starts the process.

The rule: nothing is ignored silently. An unknown key in the file and an unknown `HOLDFAST_…`
variable are refused with the name that was probably meant, and no message ever shows a value, so
that no secret gets into a log. `Settings.load` reads the TOML file and the environment, which
wins; the parts of the product receive plain values and never see either. docs/settings.md is made
from this file (`extproc.settings_docs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import (
    Field,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from extproc.envoy.endpoint import parse_model_urls
from extproc.http_address import HttpAddress, TcpAddress, UnixAddress, of_worker, parse_http_address
from extproc.settings_connectors import Connectors
from extproc.settings_context import Context
from extproc.settings_conversations import Conversations
from extproc.settings_embeddings import Embeddings
from extproc.settings_envoy import Envoy
from extproc.settings_extraction import Extraction
from extproc.settings_files import Files
from extproc.settings_index import Index
from extproc.settings_limits import Background, Limits
from extproc.settings_listen import Http, Listen
from extproc.settings_metrics import Metrics
from extproc.settings_model import Model
from extproc.settings_postgres import Postgres
from extproc.settings_retrieval import Retrieval
from extproc.settings_routing import Routing
from extproc.settings_sealing import Sealing
from extproc.settings_section import Section
from extproc.settings_sidecar import Sidecar
from extproc.settings_source import (
    NESTED,
    PREFIX,
    SettingsError,
    check_names,
    describe_errors,
    merged,
    read_toml,
    with_aliases,
)
from extproc.settings_spelling import spelled
from extproc.settings_tenancy import Jwt, Tenancy
from extproc.settings_tools import Outbound, Tools
from extproc.settings_traces import Traces

__all__ = ["Settings", "SettingsError"]

# A unix socket's path has 108 bytes in Linux, the final zero among them; the rest is our margin.
SOCKET_PATH_LIMIT = 100

# What is a directory of its own below `data_dir`, where nothing else is asked for.
_BELOW_DATA_DIR = (
    ("files", "directory", "files"),
    ("embeddings", "cache_dir", "cache/embeddings"),
)


class Settings(BaseSettings):
    """The whole tree; `load` reads it, `Settings(...)` builds one from values alone."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        env_prefix=PREFIX,
        env_nested_delimiter=NESTED,
    )

    data_dir: Path = Path(".data")
    """Directory of everything that `holdfast up` keeps; relative to the working directory."""

    sidecar: Sidecar = Field(default_factory=Sidecar)
    listen: Listen = Field(default_factory=Listen)
    http: Http = Field(default_factory=Http)
    envoy: Envoy = Field(default_factory=Envoy)
    model: Model = Field(default_factory=Model)
    routing: Routing = Field(default_factory=Routing)
    postgres: Postgres = Field(default_factory=Postgres)
    background: Background = Field(default_factory=Background)
    conversations: Conversations = Field(default_factory=Conversations)
    context: Context = Field(default_factory=Context)
    limits: Limits = Field(default_factory=Limits)
    tenancy: Tenancy = Field(default_factory=Tenancy)
    jwt: Jwt = Field(default_factory=Jwt)
    tools: Tools = Field(default_factory=Tools)
    outbound: Outbound = Field(default_factory=Outbound)
    sealing: Sealing = Field(default_factory=Sealing)
    connectors: Connectors = Field(default_factory=Connectors)
    files: Files = Field(default_factory=Files)
    retrieval: Retrieval = Field(default_factory=Retrieval)
    embeddings: Embeddings = Field(default_factory=Embeddings)
    extraction: Extraction = Field(default_factory=Extraction)
    index: Index = Field(default_factory=Index)
    metrics: Metrics = Field(default_factory=Metrics)
    traces: Traces = Field(default_factory=Traces)

    SECTIONS: ClassVar[dict[str, type[Section]]] = {
        "sidecar": Sidecar,
        "listen": Listen,
        "http": Http,
        "envoy": Envoy,
        "model": Model,
        "routing": Routing,
        "postgres": Postgres,
        "background": Background,
        "conversations": Conversations,
        "context": Context,
        "limits": Limits,
        "tenancy": Tenancy,
        "jwt": Jwt,
        "tools": Tools,
        "outbound": Outbound,
        "sealing": Sealing,
        "connectors": Connectors,
        "files": Files,
        "retrieval": Retrieval,
        "embeddings": Embeddings,
        "extraction": Extraction,
        "index": Index,
        "metrics": Metrics,
        "traces": Traces,
    }

    @classmethod
    def load(cls, config_file: Path | None, environ: Mapping[str, str]) -> Self:
        """Read the file (or the one that `HOLDFAST_CONFIG` names) and the environment, which wins.

        Raises `SettingsError`, which lists everything that is wrong.
        """
        named = environ.get(f"{PREFIX}CONFIG")
        file = config_file or (Path(named) if named else None)
        from_file = read_toml(file) if file is not None else {}
        try:
            return cls(**merged(from_file, cls._from_environment(environ)))
        except ValidationError as error:
            raise SettingsError(describe_errors(error, cls.paths(), file)) from None

    @classmethod
    def paths(cls) -> dict[str, tuple[str, ...]]:
        """Return each variable's place: `HOLDFAST_LISTEN__PORT` -> `("listen", "port")`."""
        places: list[tuple[str, ...]] = [("data_dir",)]
        for name, section in cls.SECTIONS.items():
            places.extend((name, field) for field in section.model_fields)
        return {PREFIX + NESTED.join(place).upper(): place for place in places}

    @classmethod
    def _from_environment(cls, environ: Mapping[str, str]) -> dict[str, Any]:
        check_names(environ, cls.paths())
        source = EnvSettingsSource(cls)
        # The source reads os.environ by itself; ours is an argument, so that a caller decides.
        source.env_vars = {name.lower(): value for name, value in with_aliases(environ).items()}
        return source()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Build from arguments only: `load` merges the other sources and tells errors well."""
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _derive_paths(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Put the sockets and the files below `data_dir` where nothing else was asked for."""
        data_dir = Path(values.get("data_dir", ".data"))
        for name, field, below in _BELOW_DATA_DIR:
            section = _given(values.get(name))
            if isinstance(section, dict):
                section.setdefault(field, data_dir / below)
                values = {**values, name: section}
        sidecar, model = _given(values.get("sidecar")), _given(values.get("model"))
        if isinstance(sidecar, dict) and isinstance(model, dict):
            sidecar.setdefault("run_dir", data_dir / "run")
            model.setdefault("socket", Path(sidecar["run_dir"]) / "model.sock")
            return {**values, "sidecar": sidecar, "model": model}
        return values

    @model_validator(mode="after")
    def _sockets_fit(self) -> Self:
        last_worker = self.worker_socket(self.sidecar.workers - 1)
        last_http = self.http_address(self.sidecar.workers - 1)
        sockets = [last_worker, self.admin_socket, self.demo_socket, self.index_socket]
        sockets.append(self.model.socket)
        if isinstance(last_http, UnixAddress):
            sockets.append(last_http.path)
        for path in sockets:
            if len(bytes(path)) >= SOCKET_PATH_LIMIT:
                raise ValueError(
                    f"the path of the socket {path} has {len(bytes(path))} bytes and must stay "
                    f"below {SOCKET_PATH_LIMIT}: set {PREFIX}SIDECAR__RUN_DIR to a shorter "
                    "directory, such as /tmp/holdfast"
                )
        return self

    @model_validator(mode="after")
    def _tokens_fit(self) -> Self:
        if problem := self.jwt.problem(wanted=self.tenancy.source == "jwt"):
            raise ValueError(f"jwt: {problem}")
        return self

    @model_validator(mode="after")
    def _http_knows_tenants(self) -> Self:
        address = self.http_address(0)
        if address is not None:
            alone, port = self.model.via == "url", not isinstance(address, UnixAddress)
            if problem := self.tenancy.problem_over_http(alone=alone, port=port):
                raise ValueError(f"tenancy: {problem}")
        return self

    @model_validator(mode="after")
    def _model_is_known(self) -> Self:
        if self.model.via == "url" and self.model.url is None:
            raise ValueError(
                f"{PREFIX}MODEL__URL (model.url) is needed where the model is called without Envoy"
            )
        if self.model.via == "url" and len(parse_model_urls(self.model.url or "unix:-")) > 1:
            raise ValueError("model.url has several servers: only Envoy can choose among them")
        return self

    @model_validator(mode="after")
    def _requests_travel_on(self) -> Self:
        if self.model.via == "request" and not self.envoy.inline:
            raise ValueError(
                f"{PREFIX}MODEL__VIA=request (model.via) needs {PREFIX}ENVOY__INLINE=true (envoy.inline): "
                "only inline is a request a call of the model"
            )
        if self.envoy.inline and self.routing.picker_url is not None:
            raise ValueError(
                f"{PREFIX}ROUTING__PICKER_URL (routing.picker_url) would see no request that travels on "
                f"({PREFIX}ENVOY__INLINE, envoy.inline): choose one of them"
            )
        if self.model.via == "request" and self.http.listen is not None:
            raise ValueError(
                f"{PREFIX}HTTP__LISTEN (http.listen) needs another {PREFIX}MODEL__VIA (model.via) than "
                "request: over HTTP no request travels on"
            )
        return self

    @model_validator(mode="after")
    def _embeddings_are_reachable(self) -> Self:
        if self.embeddings.source == "upstream" and self.model.via == "request":
            raise ValueError(
                f"{PREFIX}EMBEDDINGS__SOURCE=upstream (embeddings.source) needs another "
                f"{PREFIX}MODEL__VIA (model.via) than request: no request of a client travels there"
            )
        return self

    def http_address(self, index: int) -> HttpAddress | None:
        """Return where worker `index` serves HTTP, if it does."""
        if self.http.listen is None:
            return None
        return of_worker(parse_http_address(self.http.listen), index)

    def worker_socket(self, index: int) -> Path:
        """Return the socket on which worker `index` serves Envoy."""
        return self.sidecar.run_dir / f"worker-{index}.sock"

    def worker_addresses(self, index: int) -> tuple[str, ...]:
        """Return where worker `index` serves ext_proc, as gRPC spells it: its socket, and perhaps a port."""
        socket = f"unix:{self.worker_socket(index).absolute()}"
        if self.sidecar.listen is None:
            return (socket,)
        first = parse_http_address(self.sidecar.listen)
        assert isinstance(first, TcpAddress)  # checked by the section
        return socket, str(TcpAddress(first.host, first.port + index))

    def content_socket(self, index: int) -> Path:
        """Return the socket from which Envoy fetches the content of files."""
        return self.sidecar.run_dir / f"files-{index}.sock"

    def content_addresses(self, index: int) -> tuple[HttpAddress, ...]:
        """Return where worker `index` serves the content of files: its socket, and perhaps a port."""
        socket = UnixAddress(self.content_socket(index).absolute())
        if self.sidecar.content_listen is None:
            return (socket,)
        first = parse_http_address(self.sidecar.content_listen)
        assert isinstance(first, TcpAddress)  # checked by the section
        return socket, TcpAddress(first.host, first.port + index)

    def debug_socket(self, index: int) -> Path:
        """Return the socket at which worker `index` shows what its responses are at."""
        return self.sidecar.run_dir / f"debug-{index}.sock"

    @property
    def admin_socket(self) -> Path:
        """The socket of Envoy's admin interface."""
        return self.sidecar.run_dir / "envoy-admin.sock"

    @property
    def index_socket(self) -> Path:
        """The socket of the private Milvus Lite."""
        return self.sidecar.run_dir / "index.sock"

    @property
    def metrics_directory(self) -> Path:
        """Where the workers write their metrics down."""
        return self.sidecar.run_dir / "metrics"

    @property
    def demo_socket(self) -> Path:
        """The socket of the demo model."""
        return self.sidecar.run_dir / "demo.sock"

    def having(self, **sections: Mapping[str, Any]) -> Self:
        """Return a checked copy with some values replaced: `having(listen={"port": 0})`."""
        values: dict[str, Any] = {"data_dir": self.data_dir}
        for name in self.SECTIONS:
            values[name] = {**_given(getattr(self, name)), **sections.get(name, {})}
        return type(self)(**values)

    def environment(self) -> dict[str, str]:
        """Return the variables that make `load` build this very tree in a child process.

        They hold the secrets in clear text: for the environment of a child, never argv or a log.
        """
        variables: dict[str, str] = {}
        for variable, place in self.paths().items():
            value: Any = self
            for step in place:
                value = getattr(value, step)
            if value is not None:
                variables[variable] = spelled(value)
        return variables


def _given(section: object) -> Any:
    """Return the values that were really given for a section, as a dictionary of their own."""
    if section is None:
        return {}
    if isinstance(section, Section):
        return {name: getattr(section, name) for name in section.model_fields_set}
    return dict(section) if isinstance(section, Mapping) else section
