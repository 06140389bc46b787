"""One trial: a target, clients that log, and at the end the proof from their logs and the ledger."""

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from bench.abuse.checker import prove
from bench.abuse.client import Asker
from bench.abuse.history import last_batch, read_ledger, read_logs
from bench.abuse.planting import Plan
from bench.abuse.records import Copy, Proof
from bench.abuse.target import PATIENCE_S, Settings, Target
from bench.abuse.vmclock import VmClock
from bench.daemon import BenchError
from bench.nest import Nest, nest

# The pools that are drained under most abuse: a quick spec for numbers, a costly one for the rest.
QUICK: Final = "ECC_NIST_P256"
COSTLY: Final = "RSA_2048"
# One without a pool: whoever asks for it waits for a pair to be made.
ON_DEMAND: Final = "ECC_NIST_P384"
POOLS: Final = {QUICK: 256, COSTLY: 16}
# Makers that compete with the harness itself for the CPU: where steps are to be passed, not timed.
EAGER: Final = {"workers": {"scheduling": "normal"}}
# Refusals that say no more than that there was no pair, or no daemon, for a while.
TOLERATED: Final = frozenset(
    {
        "refused:DaemonUnreachableError:-",
        "refused:ThrottlingException:pool_dry",
        "refused:ThrottlingException:rate_limited",
        "refused:ThrottlingException:draining",
    }
)
# With an exception planted in the daemon, it says that it has a defect.
DEFECT: Final = frozenset({"refused:KMSInternalException:-"})
NOT_ISSUING: Final = frozenset({"refused:KMSInvalidStateException:not_issuing"})


def kill_slack(pools: Mapping[str, int]) -> int:
    """What a kill of the daemon may cost unexplained: of each pool its ready set, which is at most a quarter
    of its target, and a batch on the way there, which is no larger."""
    return sum(2 * -(-target // 4) for target in pools.values())


def whole_slack(pools: Mapping[str, int]) -> int:
    """Where the books are not of the moment of death: all that the pools can hold, twice, as what was lost
    and made anew since the last status is not known."""
    return 2 * sum(pools.values()) + kill_slack(pools)


@dataclass
class Trial:
    """Made by ``trial``. ``tolerated``: refusals that may come."""

    nest: Nest
    target: Target
    tolerated: frozenset[str]
    _clients: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    _askers: list[Asker] = field(default_factory=list)
    _stopped: bool = False
    _copies: list[Copy] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.logs = self.nest.folder / "logs"
        self.logs.mkdir()

    def load(self, *clients: tuple[str, float]) -> None:
        """Start clients, one for each spec and rate, requests a second."""
        for spec, per_s in clients:
            name = str(len(self._clients))
            log = self.logs / f"{name}.log"
            arguments = (self.target.socket, str(log), name, spec, str(per_s))
            self._clients.append(self.nest.start_module("bench.abuse.client", *arguments))
        deadline = time.monotonic() + PATIENCE_S
        while not all(self._has_begun(n) for n in range(len(self._clients))):
            if time.monotonic() > deadline:
                raise BenchError(f"a client does not start: {self.nest.complaint('client.log')}")
            time.sleep(0.01)

    def _has_begun(self, number: int) -> bool:
        log = self.logs / f"{number}.log"
        return log.exists() and log.stat().st_size > 0

    def wait_serving(self) -> None:
        """Until the daemon answers. With a failpoint planted it may die on the way: then it is kept at it."""
        if not self.target.plan.fail:
            self.target.wait_serving()
            return
        deadline = time.monotonic() + PATIENCE_S
        while self.target.status() is None:
            if time.monotonic() > deadline:
                raise BenchError(f"the daemon never serves: {self.target.log()[-2000:]}")
            self.keep()
            time.sleep(0.01)

    def marks(self) -> int:
        """How often the failpoint has fired."""
        marks = Path(self.target.plan.marks)
        return len(marks.read_text().splitlines()) if marks.exists() else 0

    def copy_machine(self, clock: VmClock) -> None:
        """As far as anybody can tell. What was recorded until now, another copy may have, too."""
        batch = last_batch(self.target.state_dir)
        clock.advance()
        self._copies.append(Copy(time.monotonic(), batch))

    def put_back_segments(self) -> None:
        """Restart the daemon, and once more, with what was sealed at the first end in the reserve again."""
        folder, aside = self.target.reserve_dir, self.nest.folder / "aside"
        slack = whole_slack(self.target.pools)
        self.target.stop(slack)
        shutil.copytree(folder, aside)
        self.target.start()
        self._wait_restored()
        self.target.stop(slack)
        for segment in aside.glob("*.segment"):
            shutil.copy2(segment, folder)
        self.target.start()
        self.wait_serving()

    def _wait_restored(self) -> None:
        """Until pairs are back from the reserve, and somebody has been given some."""
        for status in self.target.statuses_until(time.monotonic() + PATIENCE_S):
            back = sum(pool["restored"] for pool in status["pools"].values())
            if back and sum(pool["issued"] for pool in status["pools"].values()) >= back:
                return
        raise BenchError("nothing came back from the reserve, or nobody was given any of it")

    def keep(self) -> bool:
        """Start the daemon again if it has died by itself; whether it had."""
        return self.target.keep(whole_slack(self.target.pools))

    @contextlib.contextmanager
    def asker(self, name: str) -> Iterator[Asker]:
        """A client in this process, whose requests are told of one by one; logged as the others'."""
        with open(self.logs / f"{name}.log", "w", buffering=1) as log:
            asker = Asker(self.target.socket, log, name)
            try:
                yield asker
            finally:
                asker.end()

    def stop_clients(self) -> None:
        """They finish the request that each is at."""
        if self._stopped:
            return
        self._stopped = True
        for client in self._clients:
            client.send_signal(signal.SIGTERM)
        # Whoever asks must find a daemon: one that dies by itself meanwhile is started again.
        deadline = time.monotonic() + PATIENCE_S
        while any(client.poll() is None for client in self._clients) and time.monotonic() < deadline:
            self.keep()
            time.sleep(0.01)
        if any(client.poll() for client in self._clients):
            raise BenchError(f"a client failed: {self.nest.complaint('client.log')}")

    def finish(self, slack: int = 0) -> Proof:
        """Stop clients and daemon, and judge. Without ``slack`` the daemon is let come to rest first and
        stopped in order, so that its last books are exact; with it, it is killed, and that may cost so many
        pairs unexplained."""
        self.stop_clients()
        if self.keep():
            self.wait_serving()
        if slack:
            self.target.kill_for_good(slack)
        elif self.target.wait_quiet():
            self.target.stop()
        else:
            raise BenchError(f"the daemon does not come to rest: {self.target.log()[-2000:]}")
        answers, expected = read_logs(self.logs.glob("*.log"))
        rows = read_ledger(self.target.state_dir)
        proof = prove(answers, rows, self.target.lives, expected, self.tolerated, self._copies)
        proof.violations += self.target.violations
        return proof


@contextlib.contextmanager
def trial(
    plan: Plan | None = None,
    pools: Mapping[str, int] = POOLS,
    settings: Settings | None = None,
    tolerated: frozenset[str] = TOLERATED,
    disk: Callable[[Path], contextlib.AbstractContextManager[None]] | None = None,
) -> Iterator[Trial]:
    """A trial for the block: a daemon that serves; all that belongs to it is gone at the end.

    ``disk`` makes and mounts the state folder.
    """
    with nest() as home, contextlib.ExitStack() as stack:
        if disk is not None:
            stack.enter_context(disk(home.folder / "state"))
        plan = replace(plan or Plan(), marks=str(home.folder / "marks"))
        target = Target(home, pools, plan, settings)
        stack.callback(target.close)
        abused = Trial(home, target, tolerated)
        abused.wait_serving()
        yield abused
