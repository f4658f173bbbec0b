"""What `/metrics` of a stack says, parsed as Prometheus does."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from extproc.http_address import UnixAddress, parse_http_address
from extproc.settings import Settings

Key = tuple[str, frozenset[tuple[str, str]]]


class Scraped:
    """One scrape: `families` as they came, and every sample by its name and labels."""

    def __init__(self, text: str) -> None:
        self.families: list[Family] = list(text_string_to_metric_families(text))
        self._samples: Mapping[Key, float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """Return a sample; 0 where there is none."""
        return self._samples.get((name, frozenset(labels.items())), 0.0)

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of all samples of a name that have these labels, among others."""
        wanted = labels.items()
        return sum(
            value
            for (found, given), value in self._samples.items()
            if found == name and wanted <= given
        )


async def scrape(settings: Settings, path: str = "/metrics") -> Scraped:
    """Ask the stack's endpoint, which listens on a unix socket."""
    address = parse_http_address(settings.metrics.listen)
    assert isinstance(address, UnixAddress)
    connector = aiohttp.UnixConnector(str(address.path))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"http://x{path}") as answer,
    ):
        assert answer.status == 200
        return Scraped(await answer.text())
