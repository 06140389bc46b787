"""Metric families in small pieces, so that whoever renders them can let others have their turn in between.

prometheus_client renders a family with all its children at once, which takes milliseconds for some hundred
of a histogram. So each family comes here as several objects of one name, type and help, one after another.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from kpcache.core.histogram import Histogram

PREFIX: Final = "kpcache_"
# A piece has one child of a histogram, or as many samples as the largest of those has.
MAX_SAMPLES: Final = 20

Samples = Iterable[tuple[Sequence[str], float]]  # the values of the labels, and what is so now


def gauge(name: str, told: str, labels: Sequence[str], samples: Samples) -> Iterator[Metric]:
    """Something that rises and falls. ``told`` is for people."""
    for piece in _pieces(samples):
        family = GaugeMetricFamily(PREFIX + name, told, labels=labels)
        for values, value in piece:
            family.add_metric(values, value)
        yield family


def counter(name: str, told: str, labels: Sequence[str], samples: Samples) -> Iterator[Metric]:
    """Something that only rises; ``name`` ends in ``_total``."""
    for piece in _pieces(samples):
        family = CounterMetricFamily(PREFIX + name, told, labels=labels)
        for values, value in piece:
            family.add_metric(values, value)
        yield family


def histogram(
    name: str, told: str, labels: Sequence[str], children: Collection[tuple[Sequence[str], Histogram]]
) -> Iterator[Metric]:
    """Durations, in seconds."""
    for values, child in children:
        family = HistogramMetricFamily(PREFIX + name, told, labels=labels)
        *below, (_, count) = child.cumulative()
        buckets = [*((repr(bound), number) for bound, number in below), ("+Inf", count)]
        family.add_metric(values, buckets, child.sum)
        yield family
    if not children:
        yield HistogramMetricFamily(PREFIX + name, told, labels=labels)


def info(name: str, told: str, values: Mapping[str, str]) -> Iterator[Metric]:
    """What does not change; ``name`` is shown with ``_info`` behind it."""
    yield InfoMetricFamily(PREFIX + name, told, value={**values})


def flag(name: str, told: str, is_set: bool) -> Iterator[Metric]:
    """1 or 0."""
    return gauge(name, told, (), [((), float(is_set))])


def _pieces(samples: Samples) -> Iterator[list[tuple[Sequence[str], float]]]:
    """At least one, be it empty: a family is there before it has samples."""
    rest = iter(samples)
    piece = [*islice(rest, MAX_SAMPLES)]
    while True:
        yield piece
        piece = [*islice(rest, MAX_SAMPLES)]
        if not piece:
            return
