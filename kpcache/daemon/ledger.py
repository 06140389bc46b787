"""The ledger for the loop: pairs wait here until they are recorded durably, and only then may be held.

One writer, in a thread. What has come in while a commit was under way goes into the next one, so that few
commits serve many pairs and one pair is not kept waiting. A disk that hangs stops nothing but this queue,
which is bounded: while it is long, or nothing can be recorded at all, ``accepts`` is false and no pair is
ordered. A batch that failed is kept as it is and tried again until it is recorded, before any other.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import trio

from kpcache.core.histogram import Histogram, edges
from kpcache.daemon.alarm_file import AlarmFile
from kpcache.daemon.ledger_batch import Batch, Duplicate, Made
from kpcache.daemon.ledger_store import LedgerUnavailableError, Store, Verdict
from kpcache.daemon.notices import log, log_defect
from kpcache.errors import ConfigError, KeyUnavailableException

# A commit of so many takes some 5 ms; more at once would hardly be faster.
MAX_BATCH_TAGS: Final = 512
# No more pairs are ordered while so many wait. What is on order comes all the same.
MAX_WAITING_PAIRS: Final = 4096
# Between attempts after a failure.
FIRST_RETRY_S: Final = 0.5
LAST_RETRY_S: Final = 30.0
_COMMIT_EDGES: Final = edges(500e-6, 50.0)
T = TypeVar("T")


class Ledger:
    """``run`` records, and must be running. Everything else is synchronous but what an administrator does."""

    def __init__(
        self,
        store: Store,
        kept: AlarmFile,
        *,
        fault: str,
        alarm: Callable[[Sequence[Duplicate], bool], None],
        room: Callable[[], None],
        availability: Callable[[bool], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        """``kept`` takes the alarm while ``store`` cannot. ``fault`` is why that is not open yet, empty if it
        is.

        ``alarm`` is told of duplicates, and whether the alarm is durable: in one step with the settling of
        the pairs of that batch. ``room`` is told that pairs are accepted again, ``availability`` of each
        change of ``available``. ``now`` gives Unix seconds.
        """
        self.fault = fault
        self._store = store
        self._kept = kept
        self._alarm = alarm
        self._room = room
        self._availability = availability
        self._now = now
        self._queue: deque[Made] = deque()
        self._batch: Batch | None = None  # under way, or failed and to be tried again
        self._waiting = 0  # pairs, of the batch and in the queue
        self._wanted = trio.Event()
        self._next_attempt = 0.0  # after a failure; the loop's clock
        # One thread at a time has the file, and no other work of the daemon's keeps it from having one.
        self._writer = trio.CapacityLimiter(1)
        self.commit_times = Histogram(_COMMIT_EDGES)  # of those that succeeded
        self.failures = 0  # of commits and of all else that was asked of the file

    @property
    def available(self) -> bool:
        return not self.fault

    @property
    def accepts(self) -> bool:
        """Whether pairs may be ordered: what is made can be recorded soon."""
        return self.available and self._waiting < MAX_WAITING_PAIRS

    @property
    def unable_s(self) -> float:
        """Until the next attempt after a failure nobody can have a pair that must be made. Longer than that
        nobody is turned away for: a disk that has room again serves whoever waits then."""
        return 0.0 if self.available else max(self._next_attempt - trio.current_time(), 0.0)

    def put(self, made: Made) -> None:
        """Record these pairs as soon as can be; then they are settled."""
        self._queue.append(made)
        self._waiting += len(made.pairs)
        self._wanted.set()

    def status(self) -> dict[str, Any]:
        """For ``kpcache.Status``. ``bytes`` is of the last minute; the texts are empty if all is well."""
        store = self._store
        return {
            "id": store.id,
            "tags": store.rows,
            "bytes": store.size_bytes,
            "available": self.available,
            "fault": self.fault,
            "rolled_back": store.rolled_back,
            "waiting": self._waiting,
        }

    async def run(self) -> None:
        """Record what comes, until cancelled: the commit under way is then still carried to its end, for
        which the daemon does not wait for ever (``leaving``)."""
        retry_s = FIRST_RETRY_S
        while True:
            if self.available and self._batch is None:
                await self._next_batch()
            try:
                verdict, took_s = await trio.to_thread.run_sync(
                    self._attempt, self._batch, limiter=self._writer
                )
            except (LedgerUnavailableError, ConfigError) as error:
                self._fail(error)
                await self._keep_alarm(error)
            except Exception as error:
                log_defect("the ledger", error)
                self._fail(LedgerUnavailableError("a defect; the daemon's log has the place"))
            else:
                retry_s = FIRST_RETRY_S
                if verdict is not None:
                    self.commit_times.observe(took_s)
                self._succeed(verdict)
                continue
            self._next_attempt = trio.current_time() + retry_s
            await trio.sleep_until(self._next_attempt)
            retry_s = min(retry_s * 2, LAST_RETRY_S)

    async def clear_alarm(self) -> None:
        """Durably. Raises ``KeyUnavailableException``; then the alarm stands."""
        await self._administrate(self._clear, "the alarm stands as before")

    async def acknowledge(self) -> None:
        """That the ledger was rolled back. Raises ``KeyUnavailableException``."""
        await self._administrate(self._store.acknowledge, "nothing was acknowledged")

    @property
    def floor(self) -> int:
        """See ``Store.raise_floor``."""
        return self._store.floor

    async def raise_floor(self) -> None:
        """See ``Store.raise_floor``. Raises ``LedgerUnavailableError``."""
        await self._ask(self._store.raise_floor)

    async def claim(self, name: str) -> bool:
        """See ``Store.claim``. Raises ``LedgerUnavailableError``."""
        return await self._ask(lambda: self._store.claim(name))

    async def unknown(self, tags: Sequence[bytes]) -> set[int]:
        """See ``Store.unknown``. Raises ``LedgerUnavailableError``."""
        return await self._ask(lambda: self._store.unknown(tags))

    async def _administrate(self, act: Callable[[], None], consequence: str) -> None:
        try:
            await self._ask(act)
        except LedgerUnavailableError as error:
            raise KeyUnavailableException(f"{error}; {consequence}") from error

    async def _ask(self, act: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(act, limiter=self._writer)
        except (LedgerUnavailableError, ConfigError) as error:
            self._fail(error)
            raise LedgerUnavailableError(str(error)) from error

    async def _keep_alarm(self, error: Exception) -> None:
        """When all has been stopped: the runtime folder may hang as well. A stop waits for it as for a
        commit."""
        if isinstance(error, LedgerUnavailableError) and error.duplicates:
            with trio.CancelScope(shield=True):
                try:
                    await trio.to_thread.run_sync(self._kept.keep, error.duplicates, limiter=self._writer)
                except Exception as defect:
                    log_defect("what keeps the alarm", defect)

    # --- in the thread

    def _attempt(self, batch: Batch | None) -> tuple[Verdict | None, float]:
        """Returns also how long the commit took, in seconds."""
        self._store.connect()
        record_kept(self._kept, self._store)
        begun = time.perf_counter()
        verdict = self._store.record(batch) if batch is not None else None
        return verdict, time.perf_counter() - begun

    def _clear(self) -> None:
        record_kept(self._kept, self._store)  # cleared or not, the ledger is where the evidence stays
        self._store.clear_alarm()
        self._kept.cleared()

    # --- in the loop

    async def _next_batch(self) -> None:
        """Wait for pairs, and take what one commit can have; none if the ledger has failed meanwhile."""
        while self.available and not self._queue:
            self._wanted = trio.Event()
            await self._wanted.wait()
        if not self.available:
            return
        made: list[Made] = []
        tags = 0
        while self._queue and (not made or tags + _tags(self._queue[0]) <= MAX_BATCH_TAGS):
            made.append(self._queue.popleft())
            tags += _tags(made[-1])
        self._batch = Batch(made, int(self._now() // 60))

    def _succeed(self, verdict: Verdict | None) -> None:
        accepted = self.accepts
        if self.fault:
            self.fault = ""
            log.warning("the ledger can be written again; pairs are made as before")
            # A ledger that could not be read at the start may have evidence in it.
            if self._store.standing:
                self._alarm(self._store.standing, True)
            self._availability(True)
        batch, self._batch = self._batch, None
        if batch is not None and verdict is not None:
            # Settled first, so that a duplicate is counted as one: the alarm burns what it finds unsettled
            # for its own reason. No other task runs in between, which could draw what is held now.
            try:
                self._settle(batch, verdict)
            finally:
                if verdict.duplicates:
                    self._alarm(verdict.duplicates, True)
        if self.accepts and not accepted:
            self._room()

    def _settle(self, batch: Batch, verdict: Verdict) -> None:
        for position, made in enumerate(batch.made):
            self._waiting -= len(made.pairs)
            made.settle(made, frozenset(pair for at, pair in verdict.refused if at == position))

    def _fail(self, error: Exception) -> None:
        self.failures += 1
        was_available = self.available
        text = str(error)
        # Once: a full disk says now this and now that. What needs another cure is told all the same.
        if was_available or (isinstance(error, ConfigError) and text != self.fault):
            log.error(
                "the ledger cannot be used: %s. No new pairs until it can; it is tried again by itself", text
            )
        self.fault = text
        self._wanted.set()
        if isinstance(error, LedgerUnavailableError) and error.duplicates:
            self._alarm(error.duplicates, False)
        if was_available:
            self._availability(False)


def record_kept(kept: AlarmFile, store: Store) -> None:
    """Write to the ledger what it could not take before. Raises ``LedgerUnavailableError``."""
    if kept.duplicates:
        store.raise_alarm(kept.duplicates)
        kept.recorded()


def _tags(made: Made) -> int:
    return sum(len(pair.tags) for pair in made.pairs)
