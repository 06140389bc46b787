"""The ledger's disk: really full (a small tmpfs of the harness's own), failing, and hanging."""

import contextlib
import itertools
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bench.abuse.history import read_log
from bench.abuse.outcome import Outcome
from bench.abuse.planting import STALL_S, Plan
from bench.abuse.records import ISSUED, OPENED
from bench.abuse.run import Run
from bench.abuse.target import PATIENCE_S, Target
from bench.abuse.trial import COSTLY, POOLS, QUICK, Trial, kill_slack, trial
from bench.daemon import BenchError

_LOAD: Final = ((QUICK, 100.0), (COSTLY, 2.0))
_ROUNDS: Final = 3
_SIZE: Final = "size=16m,mode=0700"
# While nothing can be recorded: long enough for clients to meet the end of the pools.
_LASTS_S: Final = 2.0
# Files may grow no further than this: the kernel refuses the write, and SQLite calls it an I/O error.
_FILE_BYTES: Final = 65536
# A pool that outlasts a stall several times.
_PATIENT: Final = ((QUICK, 10.0),)
_STALL_EVERY: Final = 30
_STALLS: Final = 3
_NOTICED_S: Final = 1.0
_OWN_MOUNTS: Final = "KPCACHE_ABUSE_OWN_MOUNTS"


def enter_own_mounts() -> str:
    """Go on in a mount namespace of our own, with which all that is mounted there ends.

    The program begins anew there. This returns only if it has, with an empty text, or if that is not
    possible, with the reason.
    """
    if os.environ.get(_OWN_MOUNTS):
        return ""
    # Who is not root gets a mount namespace with a user namespace in which they are.
    command = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    try:
        tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
        if not tried.returncode:
            again = [*command, sys.executable, "-m", "bench.abuse", *sys.argv[1:]]
            os.execvpe(again[0], again, {**os.environ, _OWN_MOUNTS: "1"})
    except FileNotFoundError:
        return "there is no unshare(1), of util-linux"
    return f"mounting is not allowed here: {tried.stderr.strip()}"


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", _SIZE, "kpcache-abuse", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def full(run: Run) -> Outcome:
    outcome = Outcome("full disk")
    if run.no_mounts:
        outcome.not_run.append(run.no_mounts)
        return outcome
    took: list[float] = []
    with trial(disk=_small_disk) as abused, run.display.step("full disk", _ROUNDS) as step:
        abused.load(*_LOAD)
        for number in range(_ROUNDS):
            _until_unavailable(abused.target, _fill)
            if number == _ROUNDS - 1:  # the last one is met at a start
                abused.target.kill(kill_slack(POOLS))
                abused.target.wait_serving()
            _lasts(abused.target, _fill)
            for filler in abused.target.state_dir.glob("filler*"):
                filler.unlink()
            took.append(_until_given(abused))
            step.advance()
        proof = abused.finish()
    outcome.figure("times that the disk was full", _ROUNDS)
    outcome.figure("from room to pairs, most", max(took), "s")
    outcome.add(proof)
    return outcome


def _fill(folder: Path) -> None:
    """Take all room there is, what became free since the last time included."""
    free = os.statvfs(folder)
    if free.f_bavail:
        with (folder / f"filler{time.monotonic_ns()}").open("wb") as file, contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)


def failing(run: Run) -> Outcome:
    outcome = Outcome("I/O errors")
    took: list[float] = []
    told = ""
    with trial() as abused, run.display.step("I/O errors", _ROUNDS) as step:
        abused.load(*_LOAD)
        for _ in range(_ROUNDS):
            pid = abused.target.pid
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (_FILE_BYTES, hard))
            _until_unavailable(abused.target, lambda _folder: None)
            _lasts(abused.target, lambda _folder: None)
            told = abused.target.required_status()["ledger"]["fault"]
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
            took.append(_until_given(abused))
            step.advance()
        proof = abused.finish()
    outcome.figure("times that writes failed", _ROUNDS)
    outcome.figure("from sound writes to pairs, most", max(took), "s")
    outcome.detail["what the ledger met"] = told.rpartition(": ")[2]
    outcome.add(proof)
    return outcome


def _until_unavailable(target: Target, harm: Callable[[Path], None]) -> None:
    for status in target.statuses_until(time.monotonic() + PATIENCE_S):
        harm(target.state_dir)
        if not status["ledger"]["available"]:
            return
    raise BenchError("the ledger does not notice what is done to its disk")


def _lasts(target: Target, harm: Callable[[Path], None]) -> None:
    for _ in target.statuses_until(time.monotonic() + _LASTS_S):
        harm(target.state_dir)


def _until_given(abused: Trial) -> float:
    """Seconds until pairs are recorded and held again."""
    started_s = time.monotonic()
    for status in abused.target.statuses_until(started_s + PATIENCE_S):
        pool = status["pools"][QUICK]
        if status["ledger"]["available"] and pool["held"] + pool["ready"] > 0:
            return time.monotonic() - started_s
    raise BenchError("the ledger does not come back when its disk does")


def stalled(run: Run) -> Outcome:
    outcome = Outcome("fsync stalls")
    plan = Plan(fail=f"committing:stall:{_STALL_EVERY}")
    with trial(plan) as abused, run.display.step(f"commits that take {STALL_S:.0f} s", _STALLS) as step:
        abused.target.wait_quiet()
        before = abused.marks()
        abused.load(*_PATIENT)
        deadline = time.monotonic() + PATIENCE_S * _STALLS
        while (stalls := abused.marks() - before) < _STALLS and time.monotonic() < deadline:
            step.at(stalls)
            abused.target.status()
            time.sleep(0.1)
        time.sleep(STALL_S)  # the last one is to be lived through
        abused.stop_clients()
        stalls = abused.marks() - before
        answers, _ = read_log(abused.logs / "0.log")
        proof = abused.finish()
    times = [answer.time_s for answer in answers if answer.outcome in (ISSUED, OPENED)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    if not stalls:
        outcome.void.append("no commit was stalled")
    outcome.figure(f"commits that took {STALL_S:.0f} s", stalls)
    outcome.figure("longest that a client at 10/s was without an answer", max(gaps), "s", _NOTICED_S)
    outcome.add(proof)
    return outcome
