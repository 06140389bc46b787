"""The wall clock jumps: an hour, a day, beyond 2038, and back. The machine's is left alone: the daemon's is
wrong by what stands in a file. Monotonic time, which deadlines go by, cannot jump and does not here."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.abuse.outcome import Outcome
from bench.abuse.planting import Plan
from bench.abuse.records import ISSUED, OPENED
from bench.abuse.run import Run
from bench.abuse.trial import COSTLY, ON_DEMAND, POOLS, QUICK, kill_slack, trial
from bench.nest import nest

_HOUR_S: Final = 3600.0
_DAY_S: Final = 86400.0
_BEYOND_2038: Final = 2.0**31 + _DAY_S  # Unix time, one day after 32 bits end
_LASTS_S: Final = 1.5
_ASK_S: Final = 5.0


def jumps(run: Run) -> Outcome:
    outcome = Outcome("clock jumps")
    took: list[float] = []
    with nest() as home:
        file = home.folder / "clock"
        _set(file, 0.0)
        errors = list(_errors())
        plan = Plan(clock=str(file))
        with trial(plan) as abused, run.display.step("clock jumps", len(errors)) as step:
            abused.load((QUICK, 100.0), (COSTLY, 2.0))
            with abused.asker("waiting") as asker:
                for error_s in errors:
                    _set(file, error_s)
                    started_s = time.monotonic()
                    answered = asker.ask(ON_DEMAND, _ASK_S)
                    took.append(time.monotonic() - started_s)
                    outcome.require(
                        answered in (ISSUED, OPENED), "clock", f"a clock wrong by {error_s:.0f} s: {answered}"
                    )
                    if error_s > _DAY_S:  # a start under it, and then time goes back
                        abused.target.kill(kill_slack(POOLS))
                        abused.target.wait_serving()
                    time.sleep(_LASTS_S)
                    step.advance()
            proof = abused.finish()
    outcome.figure("jumps", len(errors))
    outcome.figure("a pair made after a jump, longest", max(took), "s", _ASK_S)
    outcome.add(proof)
    return outcome


def _errors() -> Iterator[float]:
    yield from (_HOUR_S, -_HOUR_S, _DAY_S, -_DAY_S)
    yield _BEYOND_2038 - time.time()
    yield 0.0


def _set(file: Path, error_s: float) -> None:
    """At once: whoever reads it meanwhile finds the old or the new."""
    new = file.with_suffix(".new")
    new.write_text(repr(error_s))
    new.rename(file)
