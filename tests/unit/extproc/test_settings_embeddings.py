"""The section `embeddings`: what is refused, and where the local model's graph is."""

from __future__ import annotations

from pathlib import Path

import pytest

from extproc.settings import Settings, SettingsError

NAME = "HOLDFAST_EMBEDDINGS__"
UPSTREAM = {f"{NAME}SOURCE": "upstream", f"{NAME}MODEL": "bge-m3"}


def test_there_is_no_embedding_model_unless_one_is_named() -> None:
    """Nothing is loaded, and nothing asked, that nobody wants."""
    assert Settings().embeddings.source is None


def test_the_graph_of_the_local_model_is_below_the_data_directory() -> None:
    """Unless another place is named."""
    placed = Settings.load(None, {"DATA_DIR": "/data"}).embeddings
    named = Settings.load(None, {"DATA_DIR": "/data", f"{NAME}CACHE_DIR": "/cache"}).embeddings

    assert (placed.cache_dir, named.cache_dir) == (Path("/data/cache/embeddings"), Path("/cache"))


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({f"{NAME}SOURCE": "upstream"}, "needs model"),
        ({f"{NAME}SOURCE": "local", f"{NAME}MODEL": "bge-m3"}, "model is for source = upstream"),
        ({f"{NAME}URL": "http://tei"}, "url is for source = upstream"),
        ({f"{NAME}PASSAGE_PREFIX": "p: "}, "passage_prefix is for source = upstream"),
        ({**UPSTREAM, f"{NAME}API_KEY": "sk-1"}, "there is no url"),
        ({**UPSTREAM, f"{NAME}URL": "ftp://tei"}, "must begin with http"),
        ({**UPSTREAM, f"{NAME}URL": "http://u:sk-1@tei"}, "must not hold a user"),
        ({**UPSTREAM, f"{NAME}BATCH": "0"}, "BATCH"),
        (
            {**UPSTREAM, "HOLDFAST_MODEL__VIA": "request", "HOLDFAST_ENVOY__INLINE": "true"},
            "no request of a client travels there",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(environ: dict[str, str], problem: str) -> None:
    """H1: said at the start, without a secret in it (X4)."""
    with pytest.raises(SettingsError, match=problem) as refused:
        Settings.load(None, environ)

    assert "sk-1" not in str(refused.value)


def test_workers_get_the_same_settings() -> None:
    """A prefix keeps its final space, and a key stays a secret."""
    given = {
        **UPSTREAM,
        f"{NAME}URL": "https://tei",
        f"{NAME}API_KEY": "sk-1",
        f"{NAME}QUERY_PREFIX": "query: ",
        f"{NAME}DIMENSIONS": "512",
    }
    settings = Settings.load(None, given)
    again = Settings.load(None, settings.environment())

    assert again.embeddings == settings.embeddings
    assert again.embeddings.query_prefix == "query: "
    assert "sk-1" not in repr(settings)
