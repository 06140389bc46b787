"""Reads metrics as one who scrapes them does: by their names and labels."""

from collections.abc import Iterator
from typing import cast

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest

from kpcache.daemon.metrics import Metrics

PREFIX = "kpcache_"
Key = tuple[str, frozenset[tuple[str, str]]]


class Scrape:
    """All metrics at one moment."""

    def __init__(self, metrics: Metrics) -> None:
        self.pieces = [*metrics.families()]
        self._values: dict[Key, float] = {}
        for piece in self.pieces:
            for sample in piece.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in self._values, f"{sample} comes twice"
                self._values[key] = sample.value

    def value(self, name: str, **labels: str) -> float:
        """Of the one sample with these labels; raises ``KeyError`` if there is none."""
        return self._values[PREFIX + name, frozenset(labels.items())]

    def total(self, name: str, **labels: str) -> float:
        """Of all samples that have these labels, and others."""
        return sum(
            value
            for (sample, its), value in self._values.items()
            if sample == PREFIX + name and labels.items() <= its
        )

    def rising(self) -> dict[Key, float]:
        """What may never fall."""
        names = {
            sample.name
            for piece in self.pieces
            if piece.type in ("counter", "histogram")
            for sample in piece.samples
        }
        return {key: value for key, value in self._values.items() if key[0] in names}

    def families(self) -> dict[str, Metric]:
        """The pieces put together; fails where those of one family do not follow each other, or differ."""
        families: dict[str, Metric] = {}
        last = ""
        for piece in self.pieces:
            if piece.name == last:
                first = families[last]
                assert (piece.type, piece.documentation) == (first.type, first.documentation)
            else:
                assert piece.name not in families, f"{piece.name} is not in one place"
                last, families[piece.name] = piece.name, Metric(piece.name, piece.documentation, piece.type)
            families[last].samples += piece.samples
        return families

    def text(self) -> bytes:
        """As Prometheus gets it."""
        return generate_latest(cast(CollectorRegistry, self))

    def collect(self) -> Iterator[Metric]:
        """For ``generate_latest``."""
        return iter(self.families().values())

    def adds_up(self, spec: str) -> bool:
        """generated + restored = issued + discarded + held + ready + in hand."""
        come = self.value("pairs_generated_total", spec=spec) + self.value("pairs_restored_total", spec=spec)
        gone = self.value("pairs_issued_total", spec=spec) + self.total("pairs_discarded_total", spec=spec)
        here = self.total("pool_pairs", spec=spec) + self.value("pairs_in_hand", spec=spec)
        return come == gone + here


def none_fell(before: Scrape, after: Scrape) -> bool:
    """No counter, nor any number of a histogram, is less than it was, or gone."""
    now = after.rising()
    return all(now[key] >= value for key, value in before.rising().items())
