"""What a pair costs in CPU beyond making its key: reseeding, checks, tags, hash, transfer, book-keeping.

Two ways, as RSA key generation varies too much from key to key for the plain one:

- all: CPU of daemon, shards and makers by /proc while a pool refills, over that of a bare cryptography loop
  of the same number of keys, in as many processes. What is compared is the luck of two sets of keys, too.
- beyond: on the same keys. What daemon and shards use is overhead as a whole, since they make no keys; in
  the maker, its own program is run with key generation timed inside.
"""

import socket
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from bench.daemon import BenchError, Daemon
from bench.nest import Nest, nest
from bench.report import Result, Row
from bench.run import CPUS, Run
from bench.shard import maker_settings
from bench.stats import Study, compare
from kpcache.core.pipe import FrameReader, encode

SPEC = "RSA_2048"
_KPCACHE, _BARE, _BARE_AGAIN, _MAKER = "kpcache", "bare loop", "bare loop again", "maker"


@dataclass(frozen=True)
class _Cost:
    """CPU seconds for ``pairs`` pairs: in all, in key generation alone (0: unknown), and by role."""

    pairs: int
    total_s: float
    keygen_s: float = 0.0
    daemon_s: float = 0.0
    shard_s: float = 0.0


def measure(run: Run) -> Result:
    """The part."""
    rounds, pairs = run.size(5, 3), run.size(100, 6 * CPUS)
    pairs -= pairs % CPUS  # every process makes as many
    costs: dict[str, list[_Cost]] = {arm: [] for arm in (_KPCACHE, _BARE, _BARE_AGAIN, _MAKER)}
    with nest() as home:
        daemon = Daemon(home, "daemon", {SPEC: (pairs, pairs)})
        daemon.wait_full(run.display, "overhead: filling the pool")
        with run.display.step("overhead: rounds", rounds * len(costs)) as step:
            for _ in range(rounds):
                for arm in run.shuffled(list(costs)):
                    costs[arm].append(_refill(daemon, pairs) if arm == _KPCACHE else _loops(home, arm, pairs))
                    step.advance()
        daemon.require_no_dry()
        daemon.client.close()
    return _report(run, costs, rounds * pairs)


def _refill(daemon: Daemon, pairs: int) -> _Cost:
    """Empty the full pool with the makers paused, then count CPU from their start to the full pool."""
    pids = daemon.pids()
    daemon.pause_makers()
    try:
        daemon.drain(SPEC, pairs)
        before, generated = daemon.cpu_s(pids), daemon.pool(SPEC)["generated"]
    finally:
        daemon.resume_makers()
    time.sleep(0.05 * pairs / CPUS)  # it can't be full before: spare it the questions
    daemon.wait_full()
    time.sleep(0.1)
    used = daemon.cpu_s(pids)
    used.subtract(before)
    made = daemon.pool(SPEC)["generated"] - generated
    if made != pairs:
        raise BenchError(f"{made} pairs were made where {pairs} were taken")
    return _Cost(pairs, used.total(), 0.0, used["daemon"], used["shard"])


def _loops(home: Nest, arm: str, pairs: int) -> _Cost:
    """As many processes as there are makers, each with its part of the pairs."""
    each = pairs // CPUS
    if arm == _MAKER:
        totals = _makers(home, each)
    else:
        processes = [home.start_module("bench.makers", "bare", str(each), SPEC) for _ in range(CPUS)]
        totals = [_printed(home, process) for process in processes]
    return _Cost(pairs, sum(total for total, _ in totals), sum(keygen for _, keygen in totals))


def _makers(home: Nest, each: int) -> list[tuple[float, float]]:
    """Maker programs, fed each by a thread of the bench."""
    with ThreadPoolExecutor(CPUS) as threads:
        return list(threads.map(lambda _: _maker(home, each), range(CPUS)))


def _maker(home: Nest, each: int) -> tuple[float, float]:
    """One maker program, given its orders one by one as a shard does."""
    pipe, theirs = socket.socketpair()
    with pipe:
        with theirs:
            process = home.start_module("bench.makers", "maker", stdin=theirs.fileno())
        pipe.sendall(encode(["init", maker_settings()]))
        reader, left = FrameReader(), each
        while data := pipe.recv(65536):
            for message in reader.feed(data):
                if message[0] in ("ready", "done"):
                    if not left:
                        pipe.shutdown(socket.SHUT_WR)
                        break
                    pipe.sendall(encode(["make", left, SPEC, 1]))
                    left -= 1
    return _printed(home, process)


def _printed(home: Nest, process: "subprocess.Popen[bytes]") -> tuple[float, float]:
    """The two numbers that a ``bench.makers`` prints."""
    assert process.stdout is not None
    words = process.stdout.read().split()
    process.wait()
    if len(words) != 2:
        raise BenchError(f"a key loop failed: {home.complaint('makers.log')}")
    return float(words[0]), float(words[1])


def _report(run: Run, costs: dict[str, list[_Cost]], pairs: int) -> Result:
    study = Study(costs, _per_pair, run.rng, run.repeats)
    ratio = study.ratio(_KPCACHE, _BARE, "total")
    control = study.ratio(_BARE_AGAIN, _BARE, "total")
    combined = {"both": list(zip(costs[_KPCACHE], costs[_MAKER], strict=True))}
    beyond = Study(combined, _beyond_keygen, run.rng, run.repeats)
    share = beyond.estimate("both", "with over without")
    rows = [
        Row(
            "overhead",
            f"CPU for a pair of {SPEC}, all",
            study.estimate(_KPCACHE, "total").value,
            "s",
            _BARE,
            study.estimate(_BARE, "total").value,
            ratio,
            control,
            verdict=compare(ratio, control, "more", "less"),
        ),
        Row(
            "overhead",
            f"CPU for a pair of {SPEC} beyond key generation",
            beyond.estimate("both", "beyond").value,
            "s",
            "key generation",
            beyond.estimate("both", "keygen").value,
            share,
            verdict=f"{100 * (share.value - 1):.2f} % on top",
        ),
    ]
    where = {role: beyond.estimate("both", role) for role in ("maker", "shard", "daemon")}
    words = ", ".join(f"{role} {1e6 * each.value:.0f} µs" for role, each in where.items())
    return Result(
        rows,
        [f"{pairs} pairs of {SPEC} in each arm; beyond key generation, a pair: {words}"],
        {"beyond": {role: asdict(each) for role, each in where.items()}, "rounds": _plain(costs)},
    )


def _plain(costs: dict[str, list[_Cost]]) -> dict[str, list[dict[str, float]]]:
    return {arm: [asdict(cost) for cost in rounds] for arm, rounds in costs.items()}


def _per_pair(rounds: Sequence[_Cost]) -> dict[str, float]:
    return {"total": sum(cost.total_s for cost in rounds) / sum(cost.pairs for cost in rounds)}


def _beyond_keygen(rounds: Sequence[tuple[_Cost, _Cost]]) -> dict[str, float]:
    """Seconds a pair, from the daemon's refills and the timed makers."""
    pairs = sum(maker.pairs for _, maker in rounds)
    keygen = sum(maker.keygen_s for _, maker in rounds) / pairs
    parts = {
        "maker": sum(maker.total_s - maker.keygen_s for _, maker in rounds) / pairs,
        "shard": sum(refill.shard_s for refill, _ in rounds) / pairs,
        "daemon": sum(refill.daemon_s for refill, _ in rounds) / pairs,
    }
    beyond = sum(parts.values())
    return {**parts, "keygen": keygen, "beyond": beyond, "with over without": 1 + beyond / keygen}
