"""Hits while every core refills, and refilling while clients take hits.

One client takes pairs of a cheap spec at random times, as often as stands in ``_HITS_PER_S``, from a pool
that holds enough; meanwhile all makers refill the pool of a costly one that was just emptied. Before
each measurement that pool is full again.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from bench.daemon import Daemon
from bench.nest import nest
from bench.report import Result, Row
from bench.run import CPUS, Run, time_paced_calls
from bench.stats import Study, compare, judge, quantiles

_COSTLY, _CHEAP = "RSA_2048", "ECC_NIST_EDWARDS25519"
_HITS_PER_S = 400
# More than a core makes in a measurement: the pool must not be full before its end.
_COSTLY_PER_CPU = 120
_FULL, _FULL_AGAIN = "full", "full again"
_WITH, _WITHOUT, _WITHOUT_AGAIN = "with clients", "without", "without again"


@dataclass(frozen=True)
class _Round:
    """Samples in seconds; pairs made, and the CPU that makers got, in ``wall_s`` seconds."""

    wall_s: float
    made: int
    maker_s: float
    samples: list[float] = field(default_factory=list)


def measure(run: Run) -> Result:
    """The part."""
    rounds, for_s = run.size(6, 2), run.size(5, 1)
    stock = 8 * _HITS_PER_S * for_s
    target = _COSTLY_PER_CPU * CPUS if not run.quick else 36 * CPUS
    arms: dict[str, list[_Round]] = {arm: [] for arm in (_FULL, _FULL_AGAIN, _WITH, _WITHOUT, _WITHOUT_AGAIN)}
    with nest() as home:
        # All of the costly pool is urgent, and nothing of the other: so makers work for it alone, as fast as
        # they can, whatever is taken.
        daemon = Daemon(home, "daemon", {_COSTLY: (target, target), _CHEAP: (stock, 0)})
        daemon.wait_full(run.display, "refill: filling the pools")
        with run.display.step("refill: rounds", rounds * len(arms)) as step:
            for _ in range(rounds):
                for arm in run.shuffled(list(arms)):
                    arms[arm].append(_one(run, daemon, arm, for_s, target))
                    step.advance()
        daemon.require_no_dry()
        daemon.client.close()
    return _report(run, arms)


def _one(run: Run, daemon: Daemon, arm: str, for_s: float, target: int) -> _Round:
    daemon.wait_full()
    pids = daemon.pids()
    if arm not in (_FULL, _FULL_AGAIN):
        daemon.drain(_COSTLY, target)
    before, cpu_before, started = daemon.pool(_COSTLY), daemon.cpu_s(pids), time.monotonic()
    samples: list[float] = []
    if arm in (_WITHOUT, _WITHOUT_AGAIN):
        time.sleep(for_s)
    else:
        samples = time_paced_calls(lambda: daemon.generate(_CHEAP), _HITS_PER_S, for_s, run.rng)
    cpu, after, wall_s = daemon.cpu_s(pids), daemon.pool(_COSTLY), time.monotonic() - started
    return _Round(
        wall_s, after["generated"] - before["generated"], cpu["maker"] - cpu_before["maker"], samples
    )


def _report(run: Run, arms: dict[str, list[_Round]]) -> Result:
    hits = Study({arm: arms[arm] for arm in (_FULL, _FULL_AGAIN, _WITH)}, _latency, run.rng, run.repeats)
    rates = Study({arm: arms[arm] for arm in (_WITH, _WITHOUT, _WITHOUT_AGAIN)}, _rate, run.rng, run.repeats)
    rows = []
    for label in hits.labels(_FULL):
        is_last = label == "p99.9"
        ratio, control = hits.ratio(_WITH, _FULL, label), hits.ratio(_FULL_AGAIN, _FULL, label)
        rows.append(
            Row(
                "refill",
                f"hit {_CHEAP} {label}, every core refilling",
                hits.estimate(_WITH, label).value,
                "s",
                "pools full",
                hits.estimate(_FULL, label).value,
                ratio,
                control,
                "at most 2" if is_last else "",
                judge(ratio, 2.0, control) if is_last else compare(ratio, control),
            )
        )
    for label, unit, words in (
        ("pairs", "pairs/s", f"{_COSTLY} made"),
        ("cpu", "CPUs", "CPU for makers"),
    ):
        ratio, control = rates.ratio(_WITH, _WITHOUT, label), rates.ratio(_WITHOUT_AGAIN, _WITHOUT, label)
        rows.append(
            Row(
                "refill",
                f"{words}, {_HITS_PER_S} hits/s",
                rates.estimate(_WITH, label).value,
                unit,
                "without clients",
                rates.estimate(_WITHOUT, label).value,
                ratio,
                control,
                "at least 0.9",
                judge(ratio, 0.9, control, at_least=True),
            )
        )
    count = sum(len(each.samples) for each in arms[_WITH])
    return Result(
        rows,
        [
            f"{count} hits of {_CHEAP} in each arm, at random times; how many {_COSTLY} come is luck as "
            "well, so the CPU that makers got says the same more sharply"
        ],
        {
            arm: [{**asdict(each), "samples": len(each.samples)} for each in rounds]
            for arm, rounds in arms.items()
        },
    )


def _latency(rounds: Sequence[_Round]) -> dict[str, float]:
    return quantiles([each.samples for each in rounds])


def _rate(rounds: Sequence[_Round]) -> dict[str, float]:
    wall_s = sum(each.wall_s for each in rounds)
    return {
        "pairs": sum(each.made for each in rounds) / wall_s,
        "cpu": sum(each.maker_s for each in rounds) / wall_s,
    }
