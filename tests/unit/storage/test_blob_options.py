"""What an object store's client is told of connections."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pytest

from storage.blobs.options import client_options, retries


def test_a_store_that_hangs_is_asked_twice_within_its_patience() -> None:
    """P2: each attempt has half of it, and nothing is begun behind it; a whole download may take its time."""
    options = client_options("s3://bucket/below", {}, 60.0)
    assert options["read_timeout"] == timedelta(seconds=30)
    assert options["connect_timeout"] == timedelta(seconds=5)
    assert options["timeout"] == timedelta(days=1)
    assert retries(60.0) == {"retry_timeout": timedelta(seconds=60)}


@pytest.mark.parametrize(
    ("url", "prefix"), [("s3://b", "AWS"), ("gs://b", "GOOGLE"), ("az://c", "AZURE")]
)
def test_what_the_environment_says_of_connections_holds(url: str, prefix: str) -> None:
    """Under the names of the store's own tools, and of those alone; it comes before what we say."""
    environ = {
        f"{prefix}_ALLOW_HTTP": "true",
        f"{prefix}_PROXY_URL": "http://proxy",
        f"{prefix}_READ_TIMEOUT": "5s",
        f"{prefix}_REGION": "x",
        "OTHER_TIMEOUT": "1s",
    }
    options: Mapping[str, object] = dict(client_options(url, environ, 60.0))
    assert options["allow_http"] == "true"
    assert options["proxy_url"] == "http://proxy"
    assert options["read_timeout"] == "5s"
    assert "region" not in options
    assert options["timeout"] == timedelta(days=1)
