"""`extproc.settings`: one frozen tree, nothing ignored, no value in a message."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from extproc.settings import Settings, SettingsError
from extproc.settings_sidecar import Sidecar


def load(**environ: str) -> Settings:
    return Settings.load(None, environ)


def problems(**environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(**environ)
    return "\n".join(caught.value.problems)


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "holdfast.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_everything_has_a_default() -> None:
    """An empty environment is enough: `holdfast up` works without any setting (H3)."""
    settings = load()

    assert settings.listen.port == 8080
    assert settings.listen.host == "127.0.0.1"
    assert settings.model.url is None
    assert settings.postgres.url is None
    assert settings.limits.body_bytes == 32 * 1024 * 1024


def test_a_variable_sets_the_field_that_its_name_spells() -> None:
    """`HOLDFAST_SECTION__FIELD`, in the field's type."""
    settings = load(HOLDFAST_SIDECAR__WORKERS="4", HOLDFAST_MODEL__FORWARD_AUTHORIZATION="true")

    assert settings.sidecar.workers == 4
    assert settings.model.forward_authorization is True


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """A file for all replicas, a variable for one."""
    file = written(tmp_path, "[listen]\nport = 1111\nhost = '0.0.0.0'\n")

    settings = Settings.load(file, {"HOLDFAST_LISTEN__PORT": "2222"})

    assert (settings.listen.host, settings.listen.port) == ("0.0.0.0", 2222)


def test_a_variable_names_the_file(tmp_path: Path) -> None:
    """`HOLDFAST_CONFIG` does what `--config` does."""
    file = written(tmp_path, "[postgres]\npool_size = 3\n")

    assert load(HOLDFAST_CONFIG=str(file)).postgres.pool_size == 3


@pytest.mark.parametrize(
    ("alias", "value", "place"),
    [
        ("BACKEND_URL", "http://models:8000/v1", ("model", "url")),
        ("PORT", "9000", ("listen", "port")),
        ("DATA_DIR", "/data", ("data_dir",)),
        ("DATABASE_URL", "postgresql://h/d", ("postgres", "url")),
    ],
)
def test_a_short_name_stands_for_the_long_one(
    alias: str, value: str, place: tuple[str, ...]
) -> None:
    """The names of `make run`."""
    found: object = load(**{alias: value})
    for step in place:
        found = getattr(found, step)

    plain = found.get_secret_value() if isinstance(found, SecretStr) else str(found)
    assert plain == value


def test_the_long_name_wins_over_the_short_one() -> None:
    """What is meant for us alone is meant more."""
    assert load(PORT="1111", HOLDFAST_LISTEN__PORT="2222").listen.port == 2222


def test_an_empty_variable_counts_as_unset() -> None:
    """`BACKEND_URL= make run` is a run without a model server."""
    settings = load(BACKEND_URL="", HOLDFAST_LISTEN__PORT="", DATABASE_URL="")

    assert settings == load()


def test_an_unknown_variable_is_refused_and_the_near_one_named() -> None:
    """A misspelled setting must not be a default in disguise."""
    told = problems(HOLDFAST_POSTGRES__POOLSIZE="3")

    assert "HOLDFAST_POSTGRES__POOLSIZE" in told
    assert "did you mean HOLDFAST_POSTGRES__POOL_SIZE?" in told


def test_a_single_underscore_between_section_and_field_is_refused() -> None:
    """The likeliest mistake of all."""
    assert "HOLDFAST_LISTEN__PORT?" in problems(HOLDFAST_LISTEN_PORT="9000")


def test_an_unknown_key_in_the_file_is_refused_and_the_near_one_named(tmp_path: Path) -> None:
    """The file is held to the same rule."""
    file = written(tmp_path, "[postgres]\npoolsize = 3\n")

    with pytest.raises(
        SettingsError, match=r"postgres\.poolsize.*did you mean postgres\.pool_size"
    ):
        Settings.load(file, {})


def test_every_problem_is_told_at_once() -> None:
    """One start, one list."""
    told = problems(PORT="-1", HOLDFAST_SIDECAR__WORKERS="0", BACKEND_URL="ftp://host")

    assert "HOLDFAST_LISTEN__PORT (listen.port)" in told
    assert "HOLDFAST_SIDECAR__WORKERS (sidecar.workers)" in told
    assert "HOLDFAST_MODEL__URL (model.url)" in told


@pytest.mark.parametrize(
    "environ",
    [
        {"BACKEND_URL": "https://user:hunter2@host"},
        {"BACKEND_URL": "hunter2"},
        {"HOLDFAST_POSTGRES__URL": "postgresql//user:hunter2@host"},
        {"HOLDFAST_POSTGRES__POOL_SIZE": "hunter2"},
    ],
)
def test_no_message_shows_a_value(environ: dict[str, str]) -> None:
    """X4: whatever was put into the wrong variable does not get into a log."""
    assert "hunter2" not in problems(**environ)


def test_no_form_of_the_tree_shows_a_secret() -> None:
    """X4: printing the settings is safe."""
    settings = load(DATABASE_URL="postgresql://u:hunter2@h/d", HOLDFAST_MODEL__API_KEY="hunter2")

    assert "hunter2" not in f"{settings} {settings!r} {settings.model_dump_json()}"


def test_variables_that_kubernetes_adds_for_a_service_of_our_name_are_let_through() -> None:
    """A Service called `holdfast` must not keep its own pods from starting."""
    links = {
        "HOLDFAST_SERVICE_HOST": "10.0.0.1",
        "HOLDFAST_SERVICE_PORT": "8080",
        "HOLDFAST_SERVICE_PORT_HTTP": "8080",
        "HOLDFAST_PORT": "tcp://10.0.0.1:8080",
        "HOLDFAST_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "HOLDFAST_PORT_8080_TCP_ADDR": "10.0.0.1",
        "HOLDFAST_POSTGRES_SERVICE_HOST": "10.0.0.2",
        "HOLDFAST_POSTGRES_PORT": "tcp://10.0.0.2:5432",
    }

    assert load(**links) == load()


def test_a_file_that_is_not_there_or_not_toml_is_told(tmp_path: Path) -> None:
    """A readable sentence, not a traceback."""
    assert "cannot read the settings file" in problems(HOLDFAST_CONFIG=str(tmp_path / "none"))
    broken = written(tmp_path, "[listen")
    assert "is not valid TOML" in problems(HOLDFAST_CONFIG=str(broken))


def test_the_sockets_are_below_the_data_directory() -> None:
    """One directory to choose, the rest follows, unless it is chosen as well."""
    settings = load(DATA_DIR="/data")
    assert settings.worker_socket(1) == Path("/data/run/worker-1.sock")
    assert settings.model.socket == Path("/data/run/model.sock")

    moved = load(DATA_DIR="/data", HOLDFAST_SIDECAR__RUN_DIR="/run/holdfast")
    assert moved.admin_socket == Path("/run/holdfast/envoy-admin.sock")
    assert moved.model.socket == Path("/run/holdfast/model.sock")


def test_a_path_too_long_for_a_socket_is_refused_with_the_way_out() -> None:
    """Linux cuts such a path or refuses it, each in a way that is hard to read."""
    told = problems(DATA_DIR="/" + "d" * 100)

    assert "must stay below 100" in told
    assert "HOLDFAST_SIDECAR__RUN_DIR" in told


def test_a_child_that_loads_the_environment_has_the_same_tree(tmp_path: Path) -> None:
    """What a worker is told by environment is what its parent has, secrets included."""
    file = written(tmp_path, "[limits]\ntools = 7\n[model]\napi_key = 'k'\n")
    settings = Settings.load(file, {"DATA_DIR": "/data", "DATABASE_URL": "postgresql://u:p@h/d"})

    assert Settings.load(None, settings.environment()) == settings


def test_a_changed_copy_is_checked_and_keeps_the_rest() -> None:
    """`having` is how a stack puts in what it has started itself."""
    settings = load(DATA_DIR="/data", HOLDFAST_SIDECAR__WORKERS="2")

    changed = settings.having(postgres={"url": "postgresql://h/d"})

    assert changed.postgres.url == SecretStr("postgresql://h/d")
    assert changed.sidecar == settings.sidecar
    with pytest.raises(ValidationError):
        settings.having(listen={"port": -1})


def test_a_tree_can_be_built_from_sections() -> None:
    """For tests and embedders: no environment is read."""
    settings = Settings(data_dir=Path("/data"), sidecar=Sidecar(workers=3))

    assert settings.sidecar.workers == 3
    assert settings.sidecar.run_dir == Path("/data/run")


def test_the_tree_is_frozen() -> None:
    """Read once; nobody changes it underneath anybody."""
    with pytest.raises(ValidationError):
        load().listen.port = 1


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host",
        "host:8000",
        "http://",
        "http://host:port",
        "http://host:0",
        "http://host?x=y",
        "http://host#x",
        "http://user@host",
        "unix:",
        "unix://host/path",
        "unix:/" + "p" * 100,
    ],
)
def test_what_is_no_base_url_is_refused(url: str) -> None:
    """Envoy's config is made from it: what cannot be one is told here."""
    assert "model.url" in problems(BACKEND_URL=url)


def test_workers_share_no_port() -> None:
    """Streams of two workers on one port would not be balanced: each has the next one."""
    alone = Settings.load(None, {"HOLDFAST_SIDECAR__RUN_DIR": "/r"})
    three = alone.having(sidecar={"workers": 3, "listen": "[::1]:9000"})

    assert alone.worker_addresses(0) == ("unix:/r/worker-0.sock",)
    assert three.worker_addresses(2) == ("unix:/r/worker-2.sock", "[::1]:9002")
    with pytest.raises(SettingsError, match="HOST:PORT"):
        Settings.load(None, {"HOLDFAST_SIDECAR__LISTEN": "unix:/x"})


def test_downloads_have_ports_beside_those_of_ext_proc() -> None:
    """ADR 27: each worker the next one, and none that is another's; in step with `listen`."""
    alone = Settings.load(None, {"HOLDFAST_SIDECAR__RUN_DIR": "/r"})
    ports = {"workers": 3, "listen": "[::1]:9000", "content_listen": "[::1]:9003"}

    assert [str(each) for each in alone.content_addresses(0)] == ["unix:/r/files-0.sock"]
    assert [str(each) for each in alone.having(sidecar=ports).content_addresses(2)] == [
        "unix:/r/files-2.sock",
        "[::1]:9005",
    ]
    for wrong, said in (
        ({"content_listen": ":9001"}, "set both"),
        ({"workers": 3, "listen": ":9000", "content_listen": ":9002"}, "too close"),
        ({"workers": 3, "listen": ":9002", "content_listen": ":9000"}, "too close"),
        ({"listen": ":9000", "content_listen": ":9000"}, "too close"),
        ({"listen": ":9000", "content_listen": "unix:/x"}, "HOST:PORT"),
    ):
        with pytest.raises(ValidationError, match=said):
            alone.having(sidecar=wrong)


def test_a_picker_and_requests_that_travel_on_exclude_each_other() -> None:
    """H1: the picker is on the model listener, where the first turn does not come by."""
    said = problems(
        HOLDFAST_ENVOY__INLINE="true", HOLDFAST_ROUTING__PICKER_URL="http://picker:9002"
    )
    assert "HOLDFAST_ROUTING__PICKER_URL" in said


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, "HOLDFAST_ENVOY__INLINE"),
        (
            {"HOLDFAST_ENVOY__INLINE": "true", "HOLDFAST_HTTP__LISTEN": ":8081"},
            "HOLDFAST_HTTP__LISTEN",
        ),
    ],
)
def test_a_model_that_is_reached_by_requests_alone_needs_them_to_travel_on(
    environ: dict[str, str], named: str
) -> None:
    """H1: said at the start, not by each request."""
    assert named in problems(HOLDFAST_MODEL__VIA="request", **environ)
