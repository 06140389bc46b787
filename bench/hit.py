"""How long a hit takes: a pair that is ready, wrapped under the keyring with a context, through the client.

In each round every arm makes its calls, one after the other, and the arms come in random order. Makers are
paused but in the arm "makers on", so that what differs is the servers and not how much is being made beside
them; the pools hold enough for all rounds.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bench.daemon import Daemon
from bench.nest import Nest, nest
from bench.peers import Echo, Redis, in_process
from bench.report import Result, Row
from bench.run import Run, time_calls, warm_up_calls
from bench.stats import Study, compare, quantiles

_HIT, _TWIN, _MAKING = "kpcache", "second kpcache", "makers on"
_ECHO, _REDIS, _IN_PROCESS = "trio echo", "redis LPOP", "in process"


@dataclass(frozen=True)
class _Plan:
    """How much is asked of one spec. ``in_process``: calls a round that make the pair on the spot."""

    spec: str
    rounds: int
    calls: int
    in_process: int
    with_makers: bool

    @property
    def stock(self) -> int:
        """Pairs that one daemon gives out, at most, and a few more."""
        arms = 2 if self.with_makers else 1
        return arms * self.rounds * (self.calls + warm_up_calls(self.calls)) + 10


def measure(run: Run) -> Result:
    """The part."""
    # A cheap spec for many samples, the costly one for few: the daemon does the same for both.
    plans = [
        _Plan("ECC_NIST_EDWARDS25519", run.size(20, 6), run.size(1000, 300), run.size(1000, 300), True),
        _Plan("RSA_2048", run.size(12, 4), run.size(40, 5), run.size(10, 5), False),
    ]
    result = Result()
    if without_redis := Redis.why_not():
        result.notes.append(f"Redis is left out: {without_redis}")
    with nest() as home:
        pools = {plan.spec: (plan.stock, plan.stock) for plan in plans}
        daemons = [Daemon(home, name, pools) for name in ("one", "two")]
        for daemon in daemons:
            daemon.wait_full(
                run.display, f"hit: filling the pools of daemon {daemons.index(daemon) + 1} of 2"
            )
            daemon.pause_makers()
        redis = None if without_redis else Redis(home)
        for plan in plans:
            samples = _rounds(run, plan, home, daemons, redis)
            _report(run, result, plan, samples)
        for daemon in daemons:
            daemon.require_no_dry()
            daemon.client.close()
    result.notes.append(
        "taken from pools that hold all that is asked for, no request found one dry: "
        + ", ".join(f"{plan.spec} {plan.rounds} rounds of {plan.calls}" for plan in plans)
    )
    return result


def _rounds(
    run: Run, plan: _Plan, home: Nest, daemons: list[Daemon], redis: Redis | None
) -> dict[str, list[list[float]]]:
    """By arm: the sorted samples of each round."""
    one, two = daemons
    answer = one.raw_answer(plan.spec)
    arms: dict[str, Callable[[], list[float]]] = {
        _HIT: lambda: time_calls(lambda: one.generate(plan.spec), plan.calls),
        _TWIN: lambda: time_calls(lambda: two.generate(plan.spec), plan.calls),
        _ECHO: _echo(home, plan, answer),
        _IN_PROCESS: lambda: time_calls(in_process(plan.spec), plan.in_process),
    }
    if redis is not None:
        arms[_REDIS] = _redis(redis, plan, answer)
    if plan.with_makers:
        arms[_MAKING] = _making(one, plan)
    samples: dict[str, list[list[float]]] = {arm: [] for arm in arms}
    with run.display.step(f"hit: {plan.spec}", plan.rounds) as step:
        for _ in range(plan.rounds):
            for arm in run.shuffled(list(arms)):
                samples[arm].append(arms[arm]())
            step.advance()
    return samples


def _echo(home: Nest, plan: _Plan, answer: bytes) -> Callable[[], list[float]]:
    echo = Echo(home, plan.spec, answer)
    return lambda: time_calls(echo.call, plan.calls)


def _redis(redis: Redis, plan: _Plan, answer: bytes) -> Callable[[], list[float]]:
    def arm() -> list[float]:
        redis.fill(answer, plan.calls + warm_up_calls(plan.calls))
        return time_calls(redis.call, plan.calls)

    return arm


def _making(daemon: Daemon, plan: _Plan) -> Callable[[], list[float]]:
    def arm() -> list[float]:
        daemon.resume_makers()
        try:
            return time_calls(lambda: daemon.generate(plan.spec), plan.calls)
        finally:
            daemon.pause_makers()

    return arm


def _report(run: Run, result: Result, plan: _Plan, samples: dict[str, list[list[float]]]) -> None:
    study = Study(samples, quantiles, run.rng, run.repeats)
    result.detail[plan.spec] = {
        arm: {
            "samples": sum(map(len, rounds)),
            **{label: study.estimate(arm, label) for label in study.labels(arm)},
        }
        for arm, rounds in samples.items()
    }
    for label in study.labels(_HIT):
        control = study.ratio(_TWIN, _HIT, label)
        for base in (_ECHO, _REDIS, _IN_PROCESS, _MAKING):
            if base not in samples or label not in study.labels(base):
                continue
            # The arm with makers is kpcache, too: it is the one held against the quiet one.
            mine, theirs = (_MAKING, _HIT) if base == _MAKING else (_HIT, base)
            ratio = study.ratio(mine, theirs, label)
            result.rows.append(
                Row(
                    "hit",
                    f"hit {plan.spec} {label}" + (", makers on" if mine == _MAKING else ""),
                    study.estimate(mine, label).value,
                    "s",
                    "makers paused" if theirs == _HIT else theirs,
                    study.estimate(theirs, label).value,
                    ratio,
                    control,
                    verdict=compare(ratio, control),
                )
            )
