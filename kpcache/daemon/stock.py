"""The pools as the daemon sees them: ready sets, what each shard holds, and the clients that wait.

Everything here is synchronous but ``wait``: between taking a pair out of a ready set and owning it there
is no checkpoint at which a cancellation could come between. Pairs leave a ready set in ``_take`` only.
"""

from collections.abc import Callable, Iterable, Mapping

import trio

from kpcache.core import refill
from kpcache.core.pair import Pair
from kpcache.core.pool import State
from kpcache.daemon.pools import Pool, Waiter
from kpcache.errors import KpcacheError, ThrottlingException

# What one pool lets wait at once, one user half of it; a caller beyond is told at once. Bounds memory.
MAX_WAITING = 4096
# Pairs that a shard holds are not a dry pool: a caller who will not wait for one to be made still waits
# this long for a draw.
DRAW_GRACE_S = 1.0


class Stock:
    """All pools. ``send_draw(shard, spec, count)`` asks a shard; ``needs_plan()`` tells of missing pairs."""

    def __init__(
        self,
        pools: Mapping[str, tuple[int, int]],
        send_draw: Callable[[int, str, int], None],
        needs_plan: Callable[[], None],
    ) -> None:
        self.pools = {spec: Pool(spec, target, low) for spec, (target, low) in pools.items()}
        self._send_draw = send_draw
        self._needs_plan = needs_plan

    # --- giving pairs out

    def take_nowait(self, spec: str) -> Pair | None:
        """A pair that now belongs to the caller, who must ``issue`` or ``burn`` it; None if none is ready."""
        pool = self.pools[spec]
        if not pool.ready:
            return None
        pair = self._take(pool)
        if len(pool.ready) * 2 <= pool.ready_target:
            self._draw_ahead(pool)
        self._needs_plan()
        return pair

    def join_queue(self, spec: str, wait_s: float, uid: int, recheck: Callable[[], None]) -> Waiter:
        """A place in the queue for a pair, in the order of these calls; it must be passed to ``wait``.

        ``wait_s`` is how long to wait for a pair to be made; one that a shard holds is waited for anyway.
        ``recheck`` is called when a pair is there, and what it raises refuses the request: no pair is
        burnt for a key that was disabled meanwhile.
        Raises ``ThrottlingException`` (``pool_dry``, ``overloaded``).
        """
        pool = self.pools[spec]
        dry = pool.is_dry
        pool.book.dry += dry
        if dry and wait_s <= 0:
            raise _dry_error(spec)
        if len(pool.waiters) >= MAX_WAITING:
            raise _overloaded(f"{len(pool.waiters)} requests already wait for {spec}")
        if pool.waiting[uid] >= MAX_WAITING // 2:
            raise _overloaded(f"{pool.waiting[uid]} requests of this user already wait for {spec}")
        deadline = trio.current_time() + (wait_s if dry else max(wait_s, DRAW_GRACE_S))
        waiter = Waiter(spec, uid, deadline, recheck)
        pool.enqueue(waiter)
        self._serve_waiters(pool)
        self._draw_ahead(pool)
        return waiter

    async def wait(self, waiter: Waiter) -> Pair:
        """The pair that a place in the queue leads to, like ``take_nowait``.

        Raises ``ThrottlingException`` (``pool_dry``) when its time is over, or what ``dismiss_queues`` says.
        """
        pool = self.pools[waiter.spec]
        try:
            with trio.move_on_at(waiter.deadline):
                await waiter.woken.wait()
        except BaseException:
            # The caller is gone. A pair handed over between its cancellation and this line is burnt.
            if waiter.pair is not None:
                self.burn(waiter.spec, "client_gone")
            else:
                pool.leave(waiter)
            raise
        if waiter.pair is None:
            pool.leave(waiter)
            raise waiter.refusal or _dry_error(waiter.spec)
        return waiter.pair

    def dismiss_queues(self, refusal: Callable[[], KpcacheError]) -> None:
        """Have all who wait be refused now: no pair will be given out for them.

        Each gets a refusal of its own: an exception that many tasks raise collects a traceback from each.
        """
        for pool in self.pools.values():
            while pool.waiters:
                waiter = pool.next_waiter()
                waiter.refusal = refusal()
                waiter.woken.set()

    def _take(self, pool: Pool) -> Pair:
        """Take before build: from here on the pair is in no place that another request could reach."""
        pair = pool.ready.popleft()
        pool.book.move(State.READY, State.TAKEN)
        return pair

    def issue(self, spec: str) -> None:
        """A taken pair's answer has been handed to the kernel, whole."""
        self.pools[spec].book.move(State.TAKEN, State.ISSUED)

    def burn(self, spec: str, reason: str) -> None:
        """A taken pair will not reach its client; nobody else gets it."""
        self.pools[spec].book.discard(State.TAKEN, reason)

    # --- taking pairs in

    def hold(self, shard: int, spec: str, count: int) -> None:
        """A shard may hold ``count`` more pairs (already recorded)."""
        pool = self.pools[spec]
        pool.book.move(State.RECORDED, State.HELD, count)
        pool.held[shard] = pool.held.get(shard, 0) + count
        self._draw_ahead(pool)

    def receive(self, shard: int, spec: str, pairs: Iterable[Pair]) -> int:
        """A draw has arrived whole: make its pairs ready, or give them to those who wait.

        Returns how many were damaged on the way and burnt.
        """
        pool = self.pools[spec]
        asked, damaged = pool.drawing.pop(shard, 0), 0
        pool.held[shard] -= asked
        pool.book.move(State.HELD, State.DRAWN, asked)
        for pair in pairs:
            if pair.spec == spec and pair.is_intact():
                pool.book.move(State.DRAWN, State.READY)
                pool.ready.append(pair)
            else:
                pool.book.discard(State.DRAWN, "damaged")
                damaged += 1
        self._serve_waiters(pool)
        self._draw_ahead(pool)
        self._needs_plan()
        return damaged

    def lose_shard(self, shard: int) -> None:
        """A shard is gone, and with it what it held and what it was about to hand over."""
        for pool in self.pools.values():
            pool.drawing.pop(shard, None)
            lost = pool.held.pop(shard, 0)
            if lost:
                pool.book.discard(State.HELD, "worker_lost", lost)
            self._draw_ahead(pool)
        self._needs_plan()

    def burn_ready(self, reason: str) -> None:
        """Burn all ready sets: the daemon stops."""
        for pool in self.pools.values():
            if pool.ready:
                pool.book.discard(State.READY, reason, len(pool.ready))
                pool.ready.clear()

    def _serve_waiters(self, pool: Pool) -> None:
        while pool.ready and pool.waiters:
            waiter = pool.next_waiter()
            try:
                waiter.recheck()
            except KpcacheError as refusal:
                waiter.refusal = refusal
            else:
                waiter.pair = self._take(pool)
            waiter.woken.set()

    def _draw_ahead(self, pool: Pool) -> None:
        """Ask shards for what the ready set lacks, before it is needed."""
        coming = len(pool.ready) + sum(pool.drawing.values())
        missing = pool.ready_target + len(pool.waiters) - coming
        if missing > 0 and (pool.waiters or coming * 2 <= pool.ready_target):
            for shard, count in refill.draws(missing, pool.held, pool.drawing):
                pool.drawing[shard] = count
                self._send_draw(shard, pool.spec, count)
        if pool.waiters:
            self._needs_plan()


def _dry_error(spec: str) -> ThrottlingException:
    return ThrottlingException(
        f"no {spec} pair is ready; try again, or pass wait_s to wait for one",
        reason="pool_dry",
        retry_after_s=1.0,
    )


def _overloaded(message: str) -> ThrottlingException:
    return ThrottlingException(message, reason="overloaded", retry_after_s=1.0)
