"""What it costs a hit that freed memory is overwritten: the same daemon with and without it.

Three daemons: one that wipes, one that does not (``MALLOC_PERTURB_=0``), and another that does not, for what
the machine's noise looks like. In each round each is asked in turn, in random order, with makers paused.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from bench.daemon import BenchError, Daemon
from bench.nest import cpu_s, nest
from bench.report import Result, Row
from bench.run import Run, time_calls, warm_up_calls
from bench.stats import Study, compare, quantiles

_WIPING, _PLAIN, _PLAIN_AGAIN = "wiping", "not wiping", "not wiping again"
_OFF = {"MALLOC_PERTURB_": "0"}
_SETTINGS = {"workers": {"scheduling": "normal"}}  # makers only fill the pools here: let them be quick


def measure(run: Run) -> Result:
    """The part."""
    rounds, calls = run.size(20, 8), run.size(500, 200)
    plans = {"ECC_NIST_EDWARDS25519": calls, "RSA_2048": run.size(20, 4)}
    pools = {
        spec: (stock, stock)
        for spec, each in plans.items()
        for stock in [rounds * (each + warm_up_calls(each)) + 10]
    }
    result = Result()
    with nest() as home:
        daemons: dict[str, Daemon] = {}
        pids: dict[str, int] = {}
        for name in (_WIPING, _PLAIN, _PLAIN_AGAIN):
            daemon = Daemon(home, name, pools, _SETTINGS, environ={} if name == _WIPING else _OFF)
            if daemon.status()["memory"]["wiped_on_free"] != (name == _WIPING):
                raise BenchError("a daemon wipes freed memory where it should not, or the other way round")
            daemon.wait_full(run.display, f"wiping: filling the pools of the daemon {name}")
            daemon.pause_makers()
            daemons[name] = daemon
            pids[name] = daemon.pids()["daemon"][0]
        for spec, each in plans.items():
            arms: dict[str, Callable[[], list[float]]] = {
                name: partial(time_calls, partial(daemon.generate, spec), each)
                for name, daemon in daemons.items()
            }
            samples: dict[str, list[list[float]]] = {name: [] for name in arms}
            used: dict[str, list[float]] = {name: [] for name in arms}
            with run.display.step(f"wiping: {spec}", rounds) as step:
                for _ in range(rounds):
                    for name in run.shuffled(list(arms)):
                        before = cpu_s(pids[name])
                        samples[name].append(arms[name]())
                        used[name].append((cpu_s(pids[name]) - before) / (each + warm_up_calls(each)))
                    step.advance()
            _report(result, spec, Study(samples, quantiles, run.rng, run.repeats))
            _report(result, spec, Study(used, _cpu, run.rng, run.repeats))
        for daemon in daemons.values():
            daemon.require_no_dry()
            daemon.client.close()
    return result


def _cpu(rounds: Sequence[float]) -> dict[str, float]:
    return {"CPU of the daemon": sum(rounds) / len(rounds)}


def _report(result: Result, spec: str, study: Study[Any]) -> None:
    for label in study.labels(_WIPING):
        ratio, control = (study.ratio(arm, _PLAIN, label) for arm in (_WIPING, _PLAIN_AGAIN))
        result.rows.append(
            Row(
                "wiping",
                f"hit {spec} {label}, wiping",
                study.estimate(_WIPING, label).value,
                "s",
                _PLAIN,
                study.estimate(_PLAIN, label).value,
                ratio,
                control,
                verdict=compare(ratio, control),
            )
        )
