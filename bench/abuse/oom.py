"""Workers that the kernel kills for want of memory: really so, in a memory cgroup of the harness's own.

One shard is moved into it with its makers. A hog beside them takes memory until there is none; the kernel is
told which of the workers to take first then (oom_score_adj), and kills it wherever in its work it is.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.abuse.outcome import Outcome
from bench.abuse.planting import Plan
from bench.abuse.run import Run, quantile
from bench.abuse.target import PATIENCE_S, Target
from bench.abuse.trial import COSTLY, QUICK, Trial, trial
from bench.daemon import BenchError

_LOAD: Final = ((QUICK, 100.0), (COSTLY, 5.0))
_LIMIT_BYTES: Final = 128 * 1024 * 1024
_FIRST: Final = "1000"
_ROOT: Final = Path("/sys/fs/cgroup")
# Takes 1 MiB at a time, so that whoever else needs some just then may be the one to meet the end of it.
_HOG: Final = (
    "import sys\nsys.stdin.readline()\ntaken = []\nwhile True:\n    taken.append(bytearray(b'x') * 2**20)\n"
)


class CgroupError(Exception):
    """There is no memory cgroup to be had here; the text says why."""


class Cgroup:
    """A memory cgroup of version 1 or 2 below our own."""

    def __init__(self, folder: Path, limit: str, kills: str) -> None:
        self._folder = folder
        self._kills = folder / kills
        (folder / limit).write_text(str(_LIMIT_BYTES))

    def add(self, pid: int) -> None:
        (self._folder / "cgroup.procs").write_text(str(pid))

    @property
    def kills(self) -> int:
        """How many of its processes the kernel has killed."""
        counts = dict(line.split() for line in self._kills.read_text().splitlines())
        return int(counts["oom_kill"])


@contextlib.contextmanager
def _cgroup() -> Iterator[Cgroup]:
    """Raises ``CgroupError``. At the end no process may be left in it."""
    folder, limit, kills = _place()
    try:
        folder.mkdir()
    except OSError as error:
        raise CgroupError(f"{folder}: {error.strerror}") from error
    try:
        yield Cgroup(folder, limit, kills)
    except FileNotFoundError as error:
        raise CgroupError(f"{error.filename}: memory is not accounted for here") from error
    finally:
        _remove(folder)


def _place() -> tuple[Path, str, str]:
    name = f"kpcache-abuse-{os.getpid()}"
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    entries = [line.split(":", 2) for line in lines]
    for _, controllers, path in entries:
        if "memory" in controllers.split(","):
            return _ROOT / "memory" / path.lstrip("/") / name, "memory.limit_in_bytes", "memory.oom_control"
    for number, _, path in entries:
        if number == "0":
            return _ROOT / path.lstrip("/") / name, "memory.max", "memory.events"
    raise CgroupError("this process is in no cgroup")


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            folder.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)  # its last process is just ending
        else:
            return


def killed(run: Run) -> Outcome:
    outcome = Outcome("out of memory")
    took: list[float] = []
    try:
        with (
            _cgroup() as cgroup,
            trial(Plan(healthy_life_s=0.0)) as abused,
            run.display.step("workers killed for want of memory", run.sizes.ooms) as step,
        ):
            abused.load(*_LOAD)
            for _ in range(run.sizes.ooms):
                took.append(_one(run, abused, cgroup))
                step.advance()
            proof = abused.finish()
            kills = cgroup.kills
    except CgroupError as error:
        outcome.not_run.append(f"no worker was killed for want of memory: {error}")
        return outcome
    outcome.figure("workers that the kernel killed for want of memory", kills)
    outcome.figure(
        "from the end of the shortage to the replacement's first pair, p50", quantile(took, 0.5), "s"
    )
    outcome.figure("the same, longest", max(took), "s")
    outcome.require(kills >= run.sizes.ooms, "oom", f"{kills} kills in {run.sizes.ooms} shortages")
    outcome.add(proof)
    return outcome


def _one(run: Run, abused: Trial, cgroup: Cgroup) -> float:
    """One shortage of memory, from which a worker of shard 0 dies. Seconds from its end to new pairs."""
    workers, before = _move_in(abused.target, cgroup)
    Path(f"/proc/{run.rng.choice(workers)}/oom_score_adj").write_text(_FIRST)
    kills = cgroup.kills
    hog = abused.nest.start([sys.executable, "-S", "-c", _HOG], stdin=subprocess.PIPE, log="hog.log")
    try:
        cgroup.add(hog.pid)
        assert hog.stdin is not None
        hog.stdin.write(b"\n")
        hog.stdin.flush()
        deadline = time.monotonic() + PATIENCE_S
        while cgroup.kills == kills:
            if time.monotonic() > deadline:
                raise BenchError("there is a memory limit, and the kernel kills nobody")
            time.sleep(0.005)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(hog.pid, signal.SIGKILL)
        hog.wait()
    over_s = time.monotonic()
    for status in abused.target.statuses_until(over_s + PATIENCE_S):
        for worker in _makers(status):
            if worker["restarts"] > before[worker["maker"]] and worker["pairs"]:
                return time.monotonic() - over_s
    raise BenchError("nothing replaces a worker that was killed for want of memory")


def _move_in(target: Target, cgroup: Cgroup) -> tuple[list[int], dict[int, int]]:
    """Have shard 0 and its makers in the cgroup: their pids, and the makers' restarts so far."""
    for status in target.statuses_until(time.monotonic() + PATIENCE_S):
        up = [worker for worker in target.workers(status) if worker["shard"] == 0]
        if len(up) > 1:
            pids = [worker["pid"] for worker in up]
            for pid in pids:
                cgroup.add(pid)
            return pids, {worker["maker"]: worker["restarts"] for worker in _makers(status)}
    raise BenchError("shard 0 and its makers do not come up")


def _makers(status: dict[str, Any]) -> list[dict[str, Any]]:
    return [worker for worker in status["workers"] if worker["role"] == "maker" and worker["shard"] == 0]
