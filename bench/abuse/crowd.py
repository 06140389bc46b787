"""Too many connections: slow ones by the thousand, and more than there are file descriptors for."""

import contextlib
import os
import resource
import signal
import socket
import time
from typing import Final

import msgpack

from bench.abuse.client import Asker
from bench.abuse.outcome import Outcome
from bench.abuse.planting import Plan
from bench.abuse.records import ISSUED, OPENED
from bench.abuse.run import Run, quantile
from bench.abuse.target import PATIENCE_S
from bench.abuse.trial import COSTLY, QUICK, Trial, trial
from bench.daemon import BenchError

_BEGUN: Final = msgpack.packb([0, 1, "GenerateDataKeyPair", []])[:10]
_ASK_EACH: Final = 50  # connections
_SPARE_FDS: Final = 512
_GOOD_LIMIT_S: Final = 1.0
_FEW_FDS: Final = 8  # that the daemon may still open
_TOO_MANY: Final = 64
_SHORT_S: Final = 3.0


def slow(run: Run) -> Outcome:
    """Each begins a message and stalls, until it is cut at its deadline."""
    outcome = Outcome("slow connections")
    count = run.sizes.connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and count + _SPARE_FDS > hard:
        outcome.not_run.append(
            f"{count} connections: {hard} open files are allowed here, and that is the most"
        )
        return outcome
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + _SPARE_FDS), hard))
    limits = {"requests": {"max_connections": count + 100, "max_connections_per_uid": count + 100}}
    took: list[float] = []
    try:
        with trial(settings=limits) as abused, run.display.step("slow connections", count) as step:
            abused.load((COSTLY, 2.0))
            with abused.asker("good") as asker, contextlib.ExitStack() as stack:
                started_s = time.monotonic()
                crowd = []
                for number in range(count):
                    crowd.append(stack.enter_context(_connected(abused.target.socket)))
                    if number % _ASK_EACH == 0:
                        took.append(_timed(asker))
                        step.at(number)
                opened_s = time.monotonic() - started_s
                most = abused.target.required_status()["connections"]
                until_s = _all_cut(crowd, asker, took)
            left = _connections_left(abused)
            proof = abused.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    outcome.figure("slow connections", count)
    outcome.figure("open at once, as the daemon counts", most)
    outcome.figure("opened within", opened_s, "s")
    outcome.figure("all cut, after the last was opened", until_s, "s")
    outcome.figure(f"a good client's answer, p50 of {len(took)}", quantile(took, 0.5), "s")
    outcome.figure("a good client's answer, p99", quantile(took, 0.99), "s", _GOOD_LIMIT_S)
    outcome.figure("a good client's answer, longest", max(took), "s")
    outcome.require(left <= 4, "connections", f"{left} connections are left")
    outcome.add(proof)
    return outcome


def _connected(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE_S)
    sock.connect(path)
    sock.sendall(_BEGUN)
    return sock


def _timed(asker: Asker) -> float:
    started_s = time.monotonic()
    if asker.ask(QUICK) not in (ISSUED, OPENED):
        raise BenchError("a good client got no pair")
    return time.monotonic() - started_s


def _all_cut(crowd: list[socket.socket], asker: Asker, took: list[float]) -> float:
    """Seconds until the daemon has cut every one of them."""
    started_s = time.monotonic()
    for number, sock in enumerate(crowd):
        with contextlib.suppress(ConnectionResetError):
            if sock.recv(1):
                raise BenchError("a slow connection was answered")
        if number % _ASK_EACH == 0:
            took.append(_timed(asker))
    return time.monotonic() - started_s


def _connections_left(abused: Trial) -> int:
    left = 0
    for status in abused.target.statuses_until(time.monotonic() + PATIENCE_S):
        left = status["connections"]
        if left <= 4:
            break
    return left


def descriptors(run: Run) -> Outcome:
    """The daemon's last file descriptors are taken by idle clients, and a shard dies meanwhile."""
    outcome = Outcome("file descriptors")
    with trial(Plan(healthy_life_s=0.0)) as abused, run.display.step("no file descriptors left"):
        abused.load((QUICK, 100.0), (COSTLY, 5.0))
        target = abused.target
        soft, hard = resource.prlimit(target.pid, resource.RLIMIT_NOFILE)
        # Where the numbers of its descriptors begin, not how many there are, is what the limit is about.
        used = max(int(fd) for fd in os.listdir(f"/proc/{target.pid}/fd")) + 1
        shard = next(w["pid"] for w in target.required_status()["workers"] if w["role"] == "shard")
        resource.prlimit(target.pid, resource.RLIMIT_NOFILE, (used + _FEW_FDS, hard))
        idle = []
        for _ in range(_TOO_MANY):
            idle.append(socket.socket(socket.AF_UNIX))
            idle[-1].settimeout(PATIENCE_S)
            idle[-1].connect(target.socket)
        os.kill(shard, signal.SIGKILL)
        time.sleep(_SHORT_S)
        alive = target.is_alive
        short = "cannot accept a connection" in target.log()
        resource.prlimit(target.pid, resource.RLIMIT_NOFILE, (soft, hard))
        for sock in idle:
            sock.close()
        outcome.figure("from descriptors to pairs, and all workers", _all_up(abused), "s")
        proof = abused.finish()
    if not short:
        outcome.void.append("the daemon did not run out of descriptors")
    outcome.require(alive, "died", "the daemon did not outlive it")
    outcome.add(proof)
    return outcome


def _all_up(abused: Trial) -> float:
    """Seconds until every worker is up again, and pairs are at hand."""
    started_s = time.monotonic()
    for status in abused.target.statuses_until(started_s + PATIENCE_S):
        pool = status["pools"][QUICK]
        if len(abused.target.workers(status)) == len(status["workers"]) and pool["ready"] + pool["held"]:
            return time.monotonic() - started_s
    raise BenchError("the workers do not come back when there are file descriptors")
