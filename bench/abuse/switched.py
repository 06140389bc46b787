"""Each guard turned off: the checker must report what that lets happen, or all its verdicts are void."""

import time
from typing import Final

from bench.abuse.guards import GUARDS, Guard
from bench.abuse.outcome import Outcome
from bench.abuse.planting import Plan
from bench.abuse.records import Proof
from bench.abuse.run import Run
from bench.abuse.trial import EAGER, NOT_ISSUING, QUICK, TOLERATED, trial, whole_slack
from bench.abuse.vmclock import VmClock
from bench.nest import nest

# What a missing guard must be known by: a key given out twice, one that the ledger never had, or one that
# another copy of the machine may give out, too.
TELLING: Final = frozenset({"twice", "unknown", "copied"})
_LOAD: Final = ((QUICK, 200.0),) * 4
_POOLS: Final = {QUICK: 128}
_LASTS_S: Final = 2.0


def switched(run: Run) -> Outcome:
    outcome = Outcome("guards")
    with run.display.step("guards turned off", len(GUARDS)) as step:
        for name in GUARDS:
            try_guard(outcome, name)
            step.advance()
    outcome.figure("guards turned off", len(GUARDS))
    outcome.figure("of them reported", len(GUARDS) - len(outcome.void))
    return outcome


def try_guard(outcome: Outcome, name: str) -> None:
    """Without the guard it must be seen; with it, and its fault planted, nothing may be."""
    guard = GUARDS[name]
    seen = _proof(Plan(off=name, healthy_life_s=0.0), guard)
    if not seen.rules & TELLING:
        outcome.void.append(f"with {name} off nothing was reported, in {seen.issued} pairs")
    outcome.detail[name] = {"reported": sorted(seen.rules & TELLING), "issued": seen.issued}
    if guard.fault or guard.copies or guard.puts_back:
        guarded = _proof(Plan(fault=name, healthy_life_s=0.0), guard)
        outcome.violations += guarded.violations
        outcome.detail[name]["issued with its fault and the guard on"] = guarded.issued


def _proof(plan: Plan, guard: Guard) -> Proof:
    with nest() as home:
        clock = VmClock(home.folder / "vmclock")
        settings = {**EAGER, "clone_guard": {"vmclock": str(clock.path), "kernel_log": ""}}
        with trial(plan, _POOLS, settings, TOLERATED | NOT_ISSUING) as abused:
            abused.load(*_LOAD)
            time.sleep(_LASTS_S / 2)
            if guard.copies:
                abused.copy_machine(clock)
            if guard.puts_back:
                abused.put_back_segments()
            time.sleep(_LASTS_S / 2)
            return abused.finish(whole_slack(_POOLS))
