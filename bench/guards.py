"""What the guards cost a hit: checks, ledger and generation fence, against a daemon without any of them.

All daemons run at once, with the same pools, and are asked in random order within a round: with their makers
paused, where only the fence is left of the guards, and while the makers of the one that is asked are at work.
"""

import functools
import sys
from pathlib import Path

from bench.abuse.vmclock import VmClock
from bench.daemon import Daemon
from bench.nest import nest
from bench.report import Result, Row
from bench.run import Run, time_calls, warm_up_calls
from bench.stats import Study, judge, quantiles

_SPEC = "ECC_NIST_EDWARDS25519"
_ON, _TWIN, _LOG, _OFF = "guards on", "guards on, again", "by the kernel's log", "guards off"
_MOST = 1.10


def measure(run: Run) -> Result:
    """The part."""
    rounds, calls = run.size(24, 6), run.size(1000, 300)
    stock = 2 * rounds * (calls + warm_up_calls(calls)) + 10
    result = Result()
    with nest() as home:
        clock = VmClock(home.folder / "clock")  # a plain file, read as the device is
        by_clock = {"clone_guard": {"vmclock": str(clock.path), "kernel_log": ""}}
        by_log = {"clone_guard": {"vmclock": "", "kernel_log": "/dev/kmsg"}}
        unguarded = [sys.executable, str(Path(__file__).with_name("unguarded.py"))]
        plans = {
            _ON: (by_clock, None),
            _TWIN: (by_clock, None),
            _LOG: (by_log, None),
            _OFF: (by_clock, unguarded),
        }
        arms = {
            name: Daemon(home, name.replace(" ", "-"), {_SPEC: (stock, stock)}, settings, program)
            for name, (settings, program) in plans.items()
        }
        for name, daemon in arms.items():
            daemon.wait_full(run.display, f"guards: filling the pool of {name}")
            daemon.pause_makers()
        result.notes.append(
            "clone guards: "
            + ", ".join(f"{name} {each.status()['clone_guard']}" for name, each in arms.items())
        )
        for making in (False, True):
            samples = _rounds(run, arms, rounds, calls, making)
            _report(run, result, samples, "makers on" if making else "makers paused")
        for daemon in arms.values():
            daemon.require_no_dry()
            daemon.client.close()
    return result


def _rounds(
    run: Run, arms: dict[str, Daemon], rounds: int, calls: int, making: bool
) -> dict[str, list[list[float]]]:
    """By arm: the sorted samples of each round."""
    samples: dict[str, list[list[float]]] = {name: [] for name in arms}
    with run.display.step(f"guards: makers {'on' if making else 'paused'}", rounds) as step:
        for _ in range(rounds):
            for name in run.shuffled(list(arms)):
                daemon = arms[name]
                if making:
                    daemon.resume_makers()
                samples[name].append(time_calls(functools.partial(daemon.generate, _SPEC), calls))
                if making:
                    daemon.pause_makers()
            step.advance()
    return samples


def _report(run: Run, result: Result, samples: dict[str, list[list[float]]], when: str) -> None:
    study = Study(samples, quantiles, run.rng, run.repeats)
    result.detail[when] = {
        arm: {label: study.estimate(arm, label) for label in study.labels(arm)} for arm in samples
    }
    for label in ("p50", "p99"):
        control = study.ratio(_TWIN, _ON, label)
        for arm in (_ON, _LOG):
            ratio = study.ratio(arm, _OFF, label)
            value, other = (study.estimate(each, label).value for each in (arm, _OFF))
            result.rows.append(
                Row(
                    "guards", f"hit {label}, {when}, {arm}", value, "s", _OFF, other, ratio, control,
                    f"at most {_MOST}", judge(ratio, _MOST, control),
                )
            )  # fmt: skip
