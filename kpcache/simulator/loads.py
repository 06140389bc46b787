"""Loads: who asks for what and when, on which machine, with what pools.

The made-up ones go from little, in bursts, to far above what the makers can do, on machines of two cores
and more; all with the pools that kpcache has by default.
"""

import csv
import heapq
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kpcache.core.specs import MAKEABLE, SPECS
from kpcache.simulator.world import Arrival, Loss, Machine, PoolSize

WAIT_S: Final = 5.0  # the default of [requests].wait_timeout_s
_SPEC_COSTS: Final = {name: SPECS[name].keygen_cost_s for name in MAKEABLE}
_HEADER: Final = ["time_s", "uid", "spec"]


@dataclass(frozen=True)
class Load:
    """``arrivals`` makes one instance of the load, in order of time. ``words`` say what it is."""

    name: str
    words: str
    duration_s: float
    machine: Machine
    pools: Mapping[str, PoolSize]
    arrivals: Callable[[random.Random], Iterator[Arrival]]
    losses: Sequence[Loss] = ()


def made_up(quick: bool = False) -> dict[str, Load]:
    """The loads by name. ``quick``: a part of each, enough to see that all works."""
    part = 0.2 if quick else 1.0
    return {load.name: load for load in (make(part) for make in _ALL)}


def machine(cores: int, shards: int = 2, cost_s: Mapping[str, float] = _SPEC_COSTS) -> Machine:
    """``shards`` at most: no shard is without a maker."""
    return Machine(cores, min(shards, cores), cost_s)


def default_pools(*specs: str) -> dict[str, PoolSize]:
    """Pools of the sizes that kpcache has without a configuration."""
    return {spec: PoolSize(SPECS[spec].target, SPECS[spec].low_water) for spec in specs}


# --- streams of arrivals, in order of time


def poisson(
    luck: random.Random, spec: str, rate: float, until_s: float, uids: Sequence[int], from_s: float = 0.0
) -> Iterator[Arrival]:
    """Requests independent of each other, ``rate`` a second, each by one of ``uids``."""
    at_s = from_s
    while rate > 0 and (at_s := at_s + luck.expovariate(rate)) < until_s:
        yield Arrival(at_s, luck.choice(uids), spec, WAIT_S)


def wave(
    luck: random.Random, spec: str, highest: float, period_s: float, until_s: float, uids: Sequence[int]
) -> Iterator[Arrival]:
    """A rate that goes from nothing to ``highest`` and back in each period: days and nights."""
    for arrival in poisson(luck, spec, highest, until_s, uids):
        if luck.random() < (1 - math.cos(2 * math.pi * arrival.at_s / period_s)) / 2:
            yield arrival


def burst(
    luck: random.Random, spec: str, count: int, at_s: float, within_s: float, uids: Sequence[int]
) -> Iterator[Arrival]:
    """``count`` requests within a short time; of several ``uids`` each asks equally often."""
    times = sorted(at_s + luck.random() * within_s for _ in range(count))
    askers = [uids[number % len(uids)] for number in range(count)]
    luck.shuffle(askers)
    for time_s, uid in zip(times, askers, strict=True):
        yield Arrival(time_s, uid, spec, WAIT_S)


# --- recorded loads


def read(lines: Iterable[str]) -> list[Arrival]:
    """A recorded load, CSV with the columns ``time_s,uid,spec``. Raises ``ValueError`` with the line."""
    rows = csv.reader(lines)
    if next(rows, None) != _HEADER:
        raise ValueError(f"line 1: must be {','.join(_HEADER)}")
    arrivals: list[Arrival] = []
    for number, row in enumerate(rows, start=2):
        try:
            time_text, uid_text, spec = row
            at_s, uid = float(time_text), int(uid_text)
        except ValueError:
            raise ValueError(f"line {number}: must be a time in seconds, a uid and a spec") from None
        if not 0 <= at_s < math.inf:
            raise ValueError(f"line {number}: a time must be 0 or more")
        if spec not in MAKEABLE:
            raise ValueError(f"line {number}: no spec that can be made")
        arrivals.append(Arrival(at_s, uid, spec, WAIT_S))
    return sorted(arrivals)


def written(arrivals: Iterable[Arrival]) -> Iterator[str]:
    """The lines that ``read`` reads."""
    yield ",".join(_HEADER)
    for arrival in arrivals:
        yield f"{arrival.at_s:.6f},{arrival.uid},{arrival.spec}"


def recorded(arrivals: Sequence[Arrival], cores: int) -> Load:
    """A recorded load on a machine of so many cores, with default pools; the same in every instance."""
    specs = [spec for spec in MAKEABLE if any(arrival.spec == spec for arrival in arrivals)]
    return Load(
        "recorded",
        f"a recorded load on {cores} cores",
        max((arrival.at_s for arrival in arrivals), default=0.0),
        machine(cores),
        default_pools(*specs),
        lambda _: iter(arrivals),
    )


# --- made-up loads


def _merged(*streams: Iterator[Arrival]) -> Iterator[Arrival]:
    return heapq.merge(*streams)


def _steady(part: float) -> Load:
    until_s, users = 600 * part, range(1000, 1004)
    return Load(
        "steady",
        "2 cores at 81 %: four users ask independently for four specs",
        until_s,
        machine(2),
        default_pools("RSA_2048", "RSA_3072", "RSA_4096", "ECC_NIST_P256"),
        lambda luck: _merged(
            poisson(luck, "RSA_2048", 14, until_s, users),
            poisson(luck, "RSA_3072", 1, until_s, users),
            poisson(luck, "RSA_4096", 0.6, until_s, users),
            poisson(luck, "ECC_NIST_P256", 4, until_s, users),
        ),
    )


def _bursts(part: float) -> Load:
    until_s, users, every_s = 3600 * part, range(1000, 1004), 300
    return Load(
        "bursts",
        "2 cores: every 5 min 300 of RSA_2048 and 40 of RSA_4096 within 2 s, little in between",
        until_s,
        machine(2),
        default_pools("RSA_2048", "RSA_4096"),
        lambda luck: _merged(
            poisson(luck, "RSA_2048", 1, until_s, users),
            poisson(luck, "RSA_4096", 0.05, until_s, users),
            *(burst(luck, "RSA_2048", 300, at_s, 2, users) for at_s in range(60, int(until_s), every_s)),
            *(burst(luck, "RSA_4096", 40, at_s, 2, users) for at_s in range(60, int(until_s), every_s)),
        ),
    )


def _day(part: float) -> Load:
    until_s, users = 7200 * part, range(1000, 1004)
    return Load(
        "day and night",
        "2 cores: a day's wave over two hours, at its height 95 % of the cores, of RSA_3072 and RSA_4096",
        until_s,
        machine(2),
        default_pools("RSA_3072", "RSA_4096"),
        lambda luck: _merged(
            wave(luck, "RSA_3072", 4.0, until_s, until_s, users),
            wave(luck, "RSA_4096", 1.17, until_s, until_s, users),
        ),
    )


def _greedy(part: float) -> Load:
    until_s, spec = 200 * part, "RSA_3072"
    share = 2 / _SPEC_COSTS[spec] / 5
    return Load(
        "greedy",
        "2 cores: one user asks for 100 times its fifth of RSA_3072, four others for 0.8 of theirs",
        until_s,
        machine(2),
        default_pools(spec),
        lambda luck: _merged(
            poisson(luck, spec, 100 * share, until_s, [1000]),
            *(poisson(luck, spec, 0.8 * share, until_s, [uid]) for uid in range(1001, 1005)),
        ),
    )


def _lost(part: float) -> Load:
    until_s, users = 600 * part, range(1000, 1004)
    return Load(
        "worker lost",
        "2 cores at 72 %: one of two shards is lost at half time, with its pairs and its maker, for 20 s",
        until_s,
        machine(2),
        default_pools("RSA_2048", "RSA_4096"),
        lambda luck: _merged(
            poisson(luck, "RSA_2048", 20, until_s, users),
            poisson(luck, "RSA_4096", 0.2, until_s, users),
        ),
        [Loss(until_s / 2, 0, until_s / 2 + 20)],
    )


def _cores(part: float) -> Load:
    until_s, users = 15 * part, range(1000, 1004)
    return Load(
        "64 cores",
        "64 cores at 78 %: 600 a second of RSA_2048, 10 and 12 of the larger ones",
        until_s,
        machine(64, 8),
        default_pools("RSA_2048", "RSA_3072", "RSA_4096"),
        lambda luck: _merged(
            poisson(luck, "RSA_2048", 600, until_s, users),
            poisson(luck, "RSA_3072", 10, until_s, users),
            poisson(luck, "RSA_4096", 12, until_s, users),
        ),
    )


def _thousand(part: float) -> Load:
    until_s, users = 450 * part, range(1000, 2000)
    return Load(
        "thousand clients",
        "4 cores: each of 1000 users asks for RSA_2048 within 10 s of every minute, some at other times",
        until_s,
        machine(4),
        default_pools("RSA_2048", "RSA_4096"),
        lambda luck: _merged(
            *(burst(luck, "RSA_2048", 1000, at_s, 10, users) for at_s in range(20, int(until_s), 60)),
            poisson(luck, "RSA_2048", 3, until_s, users),
            poisson(luck, "RSA_4096", 0.5, until_s, users),
        ),
    )


_ALL: Final = (_steady, _bursts, _day, _greedy, _lost, _cores, _thousand)
