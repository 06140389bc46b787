"""What became of the requests of a run, in figures."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kpcache.simulator.engine import Run
from kpcache.simulator.world import Ending, Request


@dataclass(frozen=True)
class Scores:
    """Of all but ``fairness``, ``least_share`` and ``served_share`` less is better.

    ``dry_share``: requests that were given no pair at once; ``served_share``: those that were given one in
    the end. Waits are of those served, ``vain_s`` what the others waited in vain, spread over all requests.
    ``cpu_per_pair_s``: CPU seconds for each pair given; what lies in the pools in the end was not used up.
    ``fairness``: Jain's index over users of what each was given of its fair share; ``least_share``: that
    part for the user who got the least of its own. ``switch_share``: orders for which a maker changed its
    spec.
    """

    dry_share: float
    served_share: float
    wait_p50_s: float
    wait_p99_s: float
    vain_s: float
    cpu_s: float
    cpu_per_pair_s: float
    fairness: float
    least_share: float
    switch_share: float


def score(run: Run, cost_s: Mapping[str, float]) -> Scores:
    """``cost_s``: what a pair of each spec is worth, in CPU seconds."""
    requests = run.requests
    waits = sorted(each.ended_s - each.at_s for each in requests if each.ending is Ending.GIVEN)
    vain_s = sum(each.ended_s - each.at_s for each in requests if each.ending is not Ending.GIVEN)
    stock_s = sum((count - run.left[spec]) * cost_s[spec] for spec, count in run.start.items())
    parts = list(fair_parts(requests, cost_s).values())
    return Scores(
        dry_share=_share(sum(not each.found for each in requests), len(requests)),
        served_share=_share(len(waits), len(requests)),
        wait_p50_s=quantile(waits, 0.5),
        wait_p99_s=quantile(waits, 0.99),
        vain_s=_share(vain_s, len(requests)),
        cpu_s=run.cpu_s,
        cpu_per_pair_s=_share(run.cpu_s + stock_s, len(waits)),
        fairness=jain(parts),
        least_share=min(parts, default=1.0),
        switch_share=_share(run.switches, run.orders),
    )


def fair_parts(requests: Iterable[Request], cost_s: Mapping[str, float]) -> dict[int, float]:
    """By user, how much it was given of its fair share, at most all of it.

    Fair shares are those of max-min fairness: all that was given, by worth, is dealt out anew so that
    nobody gets more than it asked for and nobody could get more without somebody with less losing
    (Bertsekas and Gallager, Data Networks, sec. 6.5.2).
    """
    asked: dict[int, float] = {}
    given: dict[int, float] = {}
    for request in requests:
        worth = cost_s[request.spec]
        asked[request.uid] = asked.get(request.uid, 0.0) + worth
        given[request.uid] = given.get(request.uid, 0.0) + worth * (request.ending is Ending.GIVEN)
    shares = max_min(asked, sum(given.values()))
    return {uid: min(_share(given[uid], shares[uid]), 1.0) for uid in asked}


def max_min(asked: Mapping[int, float], total: float) -> dict[int, float]:
    """``total`` dealt out by max-min fairness: those who ask for little first."""
    shares: dict[int, float] = {}
    for uid in sorted(asked, key=lambda uid: asked[uid]):
        shares[uid] = min(asked[uid], total / (len(asked) - len(shares)))
        total -= shares[uid]
    return shares


def jain(values: Sequence[float]) -> float:
    """R. Jain, D. Chiu, W. Hawe, A Quantitative Measure of Fairness, 1984: from 1 divided by their number
    (one has all) to 1 (all have the same)."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def quantile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank; 0 of nothing."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else 0.0


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
