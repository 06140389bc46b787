"""The daemon that is abused: started, killed and started again on one state folder, its lives noted."""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import tomli_w

from bench.abuse import program
from bench.abuse.checker import unbalanced
from bench.abuse.history import lives_so_far
from bench.abuse.planting import Plan
from bench.abuse.records import Books, Life, Violation, books_of
from bench.daemon import BenchError
from bench.nest import Nest
from kpcache import Client
from kpcache.core.specs import MAKEABLE
from kpcache.errors import KpcacheError

Settings = Mapping[str, Mapping[str, Any]]
PATIENCE_S: Final = 60.0
_POLL_S: Final = 0.02
_STATUS_TIMEOUT_S: Final = 10.0


class Target:
    """One daemon of the harness's own. ``pools``: targets by spec; all others have none.

    Every pool is urgent up to its target: the makers are to be at work whenever a pair is missing.
    """

    def __init__(
        self, nest: Nest, pools: Mapping[str, int], plan: Plan, settings: Settings | None = None
    ) -> None:
        self._nest = nest
        self.plan = plan
        self.pools = dict(pools)
        self.socket = str(nest.folder / "kpcache.sock")
        self.state_dir = nest.folder / "state"
        self._memory = Path(tempfile.mkdtemp(prefix="kpcache-abuse-", dir="/dev/shm"))
        self.reserve_dir = self._memory / "reserve"  # on a tmpfs, or there is no reserve
        self.lives: list[Life] = []
        self.violations: list[Violation] = []
        self.statuses = 0
        self._config = nest.folder / "kpcache.toml"
        self._config.write_text(tomli_w.dumps(self._settings(settings or {})))
        self._started_s = 0.0
        self._books: Books | None = None
        self._client = Client(self.socket, timeout_s=_STATUS_TIMEOUT_S, reconnect_s=0.0)
        self.start()

    def _settings(self, more: Settings) -> dict[str, dict[str, Any]]:
        config: dict[str, dict[str, Any]] = {
            "daemon": {
                "socket": self.socket,
                "state_dir": str(self.state_dir),
                "runtime_dir": str(self.reserve_dir),
            },
            "pools": {
                spec: {"target": self.pools.get(spec, 0), "low_water": self.pools.get(spec, 0)}
                for spec in MAKEABLE
            },
            "metrics": {"listen": ""},
        }
        for table, values in more.items():
            config[table] = {**config.get(table, {}), **values}
        return config

    # --- its life

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def start(self) -> None:
        """Begin a life; returns at once."""
        command = [*program.command(self.plan), "serve", "--config", str(self._config)]
        self._started_s, self._books = time.monotonic(), None
        self._process = self._nest.start(command, log="daemon.log")

    def wait_serving(self) -> None:
        """Until it answers. Raises ``BenchError`` if it ends, or has not after a minute."""
        give_up = time.monotonic() + PATIENCE_S
        while self.status() is None:
            if not self.is_alive or time.monotonic() > give_up:
                raise BenchError(f"the daemon does not start: {self.log()[-2000:]}")
            time.sleep(_POLL_S)

    def keep(self, slack: int) -> bool:
        """Start it again if it has died by itself; whether it had."""
        if self.is_alive:
            return False
        self._end_life(slack)
        self.start()
        return True

    def kill(self, slack: int) -> float:
        """SIGKILL, right after a last status, and a new start at once. Returns when the kill was."""
        killed_s = self.kill_for_good(slack)
        self.start()
        return killed_s

    def kill_for_good(self, slack: int) -> float:
        """As ``kill``, without a new start."""
        self.status()
        killed_s = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait()
        self._end_life(slack)
        return killed_s

    def stop(self, slack: int = 0) -> None:
        """End it in order; ``slack`` 0: it must be quiet. Raises ``BenchError`` if it does not end well."""
        self.status()
        self._process.terminate()
        code = self._process.wait(PATIENCE_S)
        self._end_life(slack)
        if code:
            raise BenchError(f"the daemon ended with {code}: {self.log()[-2000:]}")

    def _end_life(self, slack: int) -> None:
        if self._process.stdout is not None:
            self._process.stdout.close()
        number = lives_so_far(self.state_dir)
        if number == max((life.number for life in self.lives), default=0):
            number = 0  # it ended before it had the ledger
        self.lives.append(Life(number, self._started_s, self._books, slack))

    # --- what it says

    def status(self) -> dict[str, Any] | None:
        """Its status, its books checked; None while it does not answer."""
        try:
            status = self._client.status()
        except KpcacheError:
            return None
        self.statuses += 1
        self.violations += unbalanced(status)
        self._books = books_of(status)
        return status

    def required_status(self) -> dict[str, Any]:
        """Raises ``BenchError`` if it does not answer."""
        status = self.status()
        if status is None:
            raise BenchError(f"the daemon does not answer: {self.log()[-2000:]}")
        return status

    def statuses_until(self, deadline_s: float) -> Iterator[dict[str, Any]]:
        """Statuses as fast as they come, until a moment; the loop ends when it has what it looked for."""
        while time.monotonic() < deadline_s:
            if (status := self.status()) is not None:
                yield status
            time.sleep(_POLL_S / 4)

    def wait_quiet(self, patience_s: float = PATIENCE_S) -> bool:
        """Until all pools are full and nothing is under way; whether that came to be."""
        for status in self.statuses_until(time.monotonic() + patience_s):
            pools = status["pools"].values()
            at_rest = not status["ledger"]["waiting"] and not any(pool["waiting"] for pool in pools)
            full = all(pool["ready"] + pool["held"] >= pool["target"] for pool in pools)
            if at_rest and full and status["ledger"]["available"]:
                return self._is_still(status)
        return False

    def _is_still(self, before: dict[str, Any]) -> bool:
        """Whether nothing moves any more: an order may still have had a pair to come."""
        for status in self.statuses_until(time.monotonic() + PATIENCE_S):
            if status["pools"] == before["pools"] and not status["ledger"]["waiting"]:
                return True
            before = status
            time.sleep(_POLL_S * 5)
        return False

    def workers(self, status: dict[str, Any]) -> list[dict[str, Any]]:
        """Those that are up."""
        return [worker for worker in status["workers"] if worker["pid"] and worker["state"] == "up"]

    def log(self) -> str:
        """All that it has written."""
        return (self._nest.folder / "daemon.log").read_text(errors="replace")

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._client.close()
        # Shards of a daemon that was killed may still be at it.
        shutil.rmtree(self._memory, ignore_errors=True)
