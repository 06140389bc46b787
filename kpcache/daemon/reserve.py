"""The reserve: pairs that shards sealed when the daemon before this one ended, brought back into shards.

Each segment goes one way, and whatever goes wrong on it, the pairs are burnt:

    found → judged by its header → claimed, durably, in the ledger → read → removed → opened by a shard
    → its tags known to the ledger → held

What is refused before it is claimed is deleted unread. Claimed before removed, and removed before any shard
has it: a kill between any two steps leaves a name that the ledger knows, or nothing at all. Segments are
claimed one by one, as shards are there to take them, so that a start that fails leaves the others for the
next. Nothing of what is in them is ever in the clear in this process.

After a kill -9 of the daemon alone its shards seal while the next one starts, so the folder is looked at for
a while: often in the first second, in which nearly all come, then seldom. What comes later waits for the
next start.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

import trio

from kpcache.core import segment
from kpcache.core.segment import Header, SegmentError
from kpcache.daemon.floor import ShardFaultError
from kpcache.daemon.ledger_store import LedgerUnavailableError
from kpcache.daemon.notices import log, log_defect
from kpcache.daemon.reserve_seat import Back, Seat, back_of, tags_of
from kpcache.daemon.reserve_start import Setup
from kpcache.daemon.segment_folder import EndNote, SegmentFolder
from kpcache.daemon.stock import Stock

FIRST_LOOKS: Final = 50
FIRST_INTERVAL_S: Final = 0.02
LOOKS: Final = 60
INTERVAL_S: Final = 1.0
LOOKED_AT_ONCE: Final = 100  # segments; some milliseconds


class Claims(Protocol):
    """What the reserve asks of ``Ledger``."""

    @property
    def available(self) -> bool:
        """Whether it can be asked at all."""

    @property
    def floor(self) -> int:
        """The first life whose segments may be opened."""

    async def claim(self, name: str) -> bool: ...

    async def unknown(self, tags: Sequence[bytes]) -> set[int]: ...


class Reserve:
    """``generation()`` is the machine's now. ``send(shard, message)`` writes to a shard. ``forbidden()`` is
    one of ``segment.REASONS`` while nothing may be restored, else empty. All is synchronous but ``run``."""

    def __init__(
        self,
        setup: Setup,
        generation: Callable[[], int],
        stock: Stock,
        send: Callable[[int, list[Any]], None],
        ledger: Claims,
        forbidden: Callable[[], str],
        shards: int,
    ) -> None:
        self._setup = setup
        self._generation = generation
        self._stock = stock
        self._send = send
        self._ledger = ledger
        self._forbidden = forbidden
        self._seats = [Seat() for _ in range(shards)]
        self._seen: set[str] = set()
        self._gone: set[str] = set()  # found, and then dropped by ``drop_all``
        self._waiting = 0  # segments found and not yet settled
        self._until_s = 0.0  # the end of the looks; the loop's clock
        self._back = trio.Event()
        self._had: dict[int, int] = {}  # pairs, by the shard of the last life that sealed
        self._restored_of_last = 0  # of the last life's
        self._note = setup.folder.take_note() if setup.folder is not None else None
        self.restored = 0
        self.dropped_segments: Counter[str] = Counter()
        self._told: Counter[str] = Counter()  # of those
        self.dropped_pairs: Counter[str] = Counter()

    # --- for the status, and at the end

    def status(self) -> dict[str, Any]:
        """For ``kpcache.Status``. ``burnt_last_restart`` is exact after an ordinary end; after a kill it has
        what shards had and is not back, and not what was with the daemon: it is the least."""
        pairs, is_exact = self._burnt()
        return {
            "on": not self._setup.why,
            "why": self._setup.why,
            "folder": str(self._setup.path),
            "restored": self.restored,
            "dropped_segments": dict(self.dropped_segments),
            "dropped_pairs": dict(self.dropped_pairs),
            "burnt_last_restart": pairs,
            "burnt_is_exact": is_exact,
        }

    def _burnt(self) -> tuple[int, bool]:
        is_exact = self._note is not None and self._note.life == self._setup.life - 1
        had = self._note.pairs if self._note is not None and is_exact else sum(self._had.values())
        return max(had - self._restored_of_last, 0), is_exact

    def leave(self) -> None:
        """The daemon ends: have the next one know what it had."""
        if self._setup.folder is not None:
            books = [pool.book for pool in self._stock.pools.values()]
            pairs = sum(book.held + book.ready + book.in_hand for book in books)
            self._setup.folder.leave_note(EndNote(self._setup.life, pairs))

    def drop_all(self, reason: str) -> None:
        """Delete what lies there, whenever it came: at an alarm, or before a snapshot of the machine. What is
        under way is stopped by ``forbidden``, and by the loss of its shard."""
        if (folder := self._setup.folder) is None:
            return
        for name in folder.segments():
            self._seen.add(name)
            self._gone.add(name)
            self._drop(folder, name, reason)
        self._tell_dropped()

    # --- what the supervisor tells

    def shard_up(self, shard: int) -> None:
        self._seats[shard].up.set()

    def lose_shard(self, shard: int) -> None:
        """It is gone, and with it what it was about to restore."""
        self._seats[shard].lose()

    def opened(self, shard: int, name: str, rows: Sequence[Any] | None) -> None:
        """A shard has opened a segment, or found it damaged (None). Raises ``ShardFaultError``."""
        seat = self._seats[shard]
        if not name or name != seat.asked:
            raise ShardFaultError("a segment was opened that it had not been given")
        seat.rows = None if rows is None else [back_of(row) for row in rows]
        seat.asked = ""
        seat.answered_s = trio.current_time()
        seat.answered.set()

    # --- the work

    async def wait_back(self) -> None:
        """Until pairs are back, and all that were there; for good if none come."""
        await self._back.wait()

    async def run(self) -> None:
        """Bring back what is there, and what comes soon; then this is over."""
        if self._setup.folder is None:
            log.warning("no pair will wait out a restart: %s", self._setup.why)
            return
        self._until_s = trio.current_time() + sum(_pauses())
        try:
            async with trio.open_nursery() as nursery:
                found, names = trio.open_memory_channel[tuple[str, Header]](math.inf)
                for shard in range(len(self._seats)):
                    nursery.start_soon(self._serve, shard, self._setup.folder, names.clone())
                names.close()
                async with found:
                    await self._watch(self._setup.folder, found)
        except Exception as error:
            # Pairs can be made anew; the daemon serves on.
            log_defect("the reserve", error)
        finally:
            self._tell_dropped()

    async def _watch(self, folder: SegmentFolder, found: trio.MemorySendChannel[tuple[str, Header]]) -> None:
        unfinished = folder.temporaries()
        for pause_s in _pauses():
            new = [name for name in folder.segments() if name not in self._seen]
            fit: list[tuple[Header, str]] = []
            for start in range(0, len(new), LOOKED_AT_ONCE):
                fit += self._look(folder, new[start : start + LOOKED_AT_ONCE])
                await trio.lowlevel.checkpoint()
            for header, name in sorted(fit, key=_order):
                found.send_nowait((name, header))
            self._tell_dropped()
            await trio.sleep(pause_s)
        # No shard takes as long to write one: it was killed over it.
        for name in set(unfinished) & set(folder.temporaries()):
            self._remove(folder, name)

    def _look(self, folder: SegmentFolder, names: Sequence[str]) -> Iterator[tuple[Header, str]]:
        """Those of these segments that may be opened; others are deleted."""
        for name in names:
            if name in self._seen:
                continue  # dropped since it was listed
            self._seen.add(name)
            try:
                header = folder.header(name)
                place = self._setup.place(self._generation())
                lives = range(self._ledger.floor, self._setup.life)
                unfit = segment.why_not(header, name, place, lives)
                if not unfit and self._is_of_last(header):
                    self._had[header.shard] = header.had
                reason = self._forbidden() or unfit
            except SegmentError as error:
                reason = str(error)
            if name in self._gone:
                continue  # a copy of the machine was noticed at this very look
            if reason:
                self._drop(folder, name, reason)
            else:
                self._waiting += 1
                yield header, name

    async def _serve(
        self, shard: int, folder: SegmentFolder, names: trio.MemoryReceiveChannel[tuple[str, Header]]
    ) -> None:
        """Give one shard segments as long as there are any."""
        seat = self._seats[shard]
        while True:
            await self._wait_usable(seat)
            try:
                name, header = await names.receive()
            except trio.EndOfChannel:
                return
            await self._wait_usable(seat)
            # What still cannot be claimed is left for the next start.
            if name in self._gone:
                pass
            elif self._ledger.available and (reason := await self._bring_back(shard, folder, name, header)):
                self._drop(folder, name, reason)
            self._waiting -= 1
            if self.restored and not self._waiting:
                self._back.set()
                log.info("%d pairs are back from the reserve", self.restored)

    async def _wait_usable(self, seat: Seat) -> None:
        """Until the shard is up and the ledger can be asked. For the ledger as long as the looks last: a disk
        that is full for a moment is to cost no segment, and one that stays so is not waited for."""
        await seat.wait_up()
        while not self._ledger.available and trio.current_time() < self._until_s:
            await trio.sleep(INTERVAL_S)
            await seat.wait_up()

    async def _bring_back(self, shard: int, folder: SegmentFolder, name: str, header: Header) -> str:
        """Why the segment is dropped; empty if all of it that may be used is back."""
        seat = self._seats[shard]
        life = seat.life
        try:
            if not await self._ledger.claim(name):
                return "claimed_before"
            data = folder.read(name)
            folder.unlink(name)  # not there any more: another has it, who may have another ledger
        except (LedgerUnavailableError, OSError):
            return "unclaimed"
        except SegmentError as error:
            return str(error)
        if reason := self._forbidden_now(header):
            return reason
        if seat.life == life:
            seat.asked, seat.answered = name, trio.Event()
            self._send(shard, ["restore", name, self._setup.key_of(header), data])
            await seat.answered.wait()
        if seat.life != life:
            return "worker_lost"
        if seat.rows is None:
            return "damaged"
        try:
            tags, owners = tags_of(seat.rows)
            unknown = {owners[index] for index in await self._ledger.unknown(tags)}
        except LedgerUnavailableError:
            return "unclaimed"  # the shard keeps them unrecorded: of no use, and gone with it
        if reason := self._forbidden_now(header):
            return reason
        if seat.life != life:
            return "worker_lost"
        # They have aged while the ledger was asked.
        waited_s = trio.current_time() - seat.answered_s
        rows = [row._replace(age_s=row.age_s + waited_s) for row in seat.rows]
        restored = self._judge(shard, rows, unknown)
        self.restored += restored
        self._restored_of_last += restored if self._is_of_last(header) else 0
        return ""

    def _is_of_last(self, header: Header) -> bool:
        """Whether it was sealed by the life before this one."""
        return header.life == self._setup.life - 1

    def _forbidden_now(self, header: Header) -> str:
        return self._forbidden() or ("generation" if header.place.generation != self._generation() else "")

    def _judge(self, shard: int, rows: Sequence[Back], unknown: set[int]) -> int:
        """Have the shard hold what it may; returns how many that are."""
        refused: list[int] = []
        held: dict[str, list[Back]] = {}
        for index, row in enumerate(rows):
            if reason := self._why_refused(row, is_known=index not in unknown):
                self.dropped_pairs[reason] += 1
                refused.append(row.serial)
            else:
                held.setdefault(row.spec, []).append(row)
        serials = [row.serial for each in held.values() for row in each]
        self._send(shard, ["verdict", serials, refused])
        for spec, each in held.items():
            self._stock.restore(shard, spec, [row.age_s for row in each])
        return len(serials)

    def _why_refused(self, row: Back, *, is_known: bool) -> str:
        pool = self._stock.pools.get(row.spec)
        if pool is None or not pool.target:
            return "no_pool"
        if not is_known:
            return "unknown_pairs"
        return "too_old" if 0 < pool.max_age_s <= row.age_s else ""

    def _drop(self, folder: SegmentFolder, name: str, reason: str) -> None:
        self.dropped_segments[reason] += 1
        self._remove(folder, name)

    def _tell_dropped(self) -> None:
        """One line for each reason, of what has been dropped since the last time."""
        for reason, count in (self.dropped_segments - self._told).items():
            log.warning("segments of the reserve dropped (%s), their pairs burnt: %d", reason, count)
        self._told = self.dropped_segments.copy()

    def _remove(self, folder: SegmentFolder, name: str) -> None:
        try:
            folder.remove(name)
        except OSError as error:
            log.warning("%s cannot be removed (%s)", self._setup.path / name, error.strerror)


def _pauses() -> Iterator[float]:
    often = itertools.repeat(FIRST_INTERVAL_S, FIRST_LOOKS)
    return itertools.chain(often, itertools.repeat(INTERVAL_S, LOOKS))


def _order(found: tuple[Header, str]) -> tuple[int, ...]:
    """Each shard sealed what was costliest first, and of one spec the oldest."""
    header, _ = found
    return header.life, header.number, header.shard
