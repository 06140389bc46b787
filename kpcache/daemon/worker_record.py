"""What is known of each worker process: the supervisor keeps it, the status shows it."""

from dataclasses import dataclass
from typing import Any, Final

import trio

STATES: Final = ("starting", "up", "backoff", "failed", "stopped")


@dataclass(slots=True)
class Worker:
    """One worker's place, kept over restarts; ``state`` is one of ``STATES``, stopped while the daemon is
    quiesced.

    ``pairs``: sound pairs handed over by the maker that is up now; ``reason``: why the last one ended;
    ``deaths``: how many did that nobody had told to, or could not be started.
    """

    role: str
    shard: int
    maker: int | None = None
    pid: int | None = None
    state: str = "starting"
    restarts: int = 0
    pairs: int = 0
    reason: str = ""
    failures: int = 0
    deaths: int = 0
    started: float | None = None

    def start(self) -> None:
        """A new process is started for this place."""
        self.restarts += self.started is not None
        self.started = trio.current_time()
        self.pid, self.state, self.pairs = None, "starting", 0

    def status(self) -> dict[str, Any]:
        """As ``kpcache.Status`` shows it."""
        names = ("role", "shard", "maker", "pid", "state", "restarts", "pairs", "reason")
        return {name: getattr(self, name) for name in names}
