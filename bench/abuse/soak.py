"""A soak: hours, or as long as is asked for, at 80 % of what the makers can make; and what grows meanwhile.

What grows for a while and then no more (the ledger's cache is filled at the start) is in the slope of a short
soak: it tells of a leak only when it is long.
"""

import os
import time
from pathlib import Path
from typing import Final

from bench.abuse.outcome import Outcome
from bench.abuse.run import Run
from bench.abuse.target import Target
from bench.abuse.trial import COSTLY, QUICK, trial
from bench.daemon import BenchError

_DRAIN: Final = 0.8
_MEASURED_S: Final = 5.0
_ASKERS: Final = 4  # clients that ask as fast as they are answered, while the makers' rate is measured
_QUICK_PER_S: Final = 50.0
_WARM_UP: Final = 0.25  # of the soak
_SAMPLE_S: Final = 1.0
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_HOUR_S: Final = 3600.0
_MIB: Final = 2**20
_FDS_PER_HOUR: Final = 1.0
# So long a soak's slopes of open files mean something: before, one descriptor more or less is many an hour.
_TELLING_S: Final = 600.0


def soak(run: Run) -> Outcome:
    outcome = Outcome("soak")
    rate = _rate() * _DRAIN
    lasts_s = run.sizes.soak_s
    samples: dict[tuple[str, int], list[tuple[float, int, int]]] = {}
    with trial() as abused, run.display.step("soak", lasts_s) as step:
        abused.target.wait_quiet()
        abused.load((COSTLY, rate), (QUICK, _QUICK_PER_S))
        started_s = time.monotonic()
        while (at_s := time.monotonic() - started_s) < lasts_s:
            for role, pid in _processes(abused.target):
                samples.setdefault((role, pid), []).append((at_s, *_sizes(pid)))
            step.at(at_s)
            time.sleep(_SAMPLE_S)
        restarts = sum(worker["restarts"] for worker in abused.target.required_status()["workers"])
        proof = abused.finish()
    outcome.figure("lasted", lasts_s, "s")
    outcome.figure(f"{COSTLY} taken, 80 % of what is made", rate, "/s")
    outcome.figure("restarts of workers", restarts)
    limit = _FDS_PER_HOUR if lasts_s >= _TELLING_S else None
    for role in ("daemon", "shard", "maker"):
        warm = [
            [sample for sample in taken if sample[0] >= lasts_s * _WARM_UP]
            for (of, _), taken in samples.items()
            if of == role
        ]
        memory = max(slope([(at, rss) for at, rss, _ in taken]) for taken in warm)
        files = max(slope([(at, fds) for at, _, fds in taken]) for taken in warm)
        outcome.figure(f"{role}: memory, MiB an hour", memory * _HOUR_S / _MIB, "MiB/h")
        outcome.figure(f"{role}: open files, an hour", files * _HOUR_S, "/h", limit)
        outcome.figure(f"{role}: memory at the end", max(taken[-1][1] for taken in warm) / _MIB, "MiB")
    outcome.require(
        not restarts, "restarts", f"{restarts} workers ended in a soak in which nobody killed any"
    )
    outcome.add(proof)
    return outcome


def _rate() -> float:
    """How many pairs a second are made when all that are made are taken."""
    with trial(pools={COSTLY: 16}) as abused:
        abused.load(*((COSTLY, 1000.0),) * _ASKERS)
        before = abused.target.required_status()["pools"][COSTLY]["generated"]
        time.sleep(_MEASURED_S)
        after = abused.target.required_status()["pools"][COSTLY]["generated"]
        abused.finish()
    if after == before:
        raise BenchError("no pair is made: there is nothing to soak")
    return float(after - before) / _MEASURED_S


def _processes(target: Target) -> list[tuple[str, int]]:
    status = target.required_status()
    return [("daemon", target.pid), *((each["role"], each["pid"]) for each in target.workers(status))]


def _sizes(pid: int) -> tuple[int, int]:
    """Bytes of memory in use, and open files: only root can see those of a process that is protected."""
    memory = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    return memory, len(os.listdir(f"/proc/{pid}/fd"))


def slope(points: list[tuple[float, int]]) -> float:
    """Of the straight line that fits best, by least squares; 0 for a single point."""
    if len(points) < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
