"""The pools as the daemon sees them: ready sets, what each shard holds, and the clients that wait.

Everything here is synchronous but ``wait``: between taking a pair out of a ready set and owning it there
is no checkpoint at which a cancellation could come between. Pairs leave a ready set in ``_take`` only,
and by their age in ``retire``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import trio

from kpcache.core import refill
from kpcache.core.buckets import Buckets, Rule
from kpcache.core.fair_queue import Identity
from kpcache.core.forecast import Forecast
from kpcache.core.histogram import Histogram, edges
from kpcache.core.pair import Pair
from kpcache.core.pool import State
from kpcache.daemon import refusals
from kpcache.daemon.fence import Fence
from kpcache.daemon.pools import Pool, PoolPlan, Waiter
from kpcache.errors import KpcacheError

# Pairs that a shard holds are not a dry pool: a caller who will not wait for one to be made still waits
# this long for a draw.
DRAW_GRACE_S = 1.0
_DRAW_EDGES = edges(100e-6, 10.0)

# When a request of a pool will have its pair, if so many of that spec must be made before its own.
Forecaster = Callable[[str, int], Forecast | None]


class Stock:
    """All pools. ``send_draw(shard, spec, count)`` asks a shard, ``send_burn`` has it forget the oldest;
    ``needs_plan()`` tells of missing pairs. ``fence`` tells of copies of this machine."""

    def __init__(
        self,
        pools: Mapping[str, PoolPlan],
        send_draw: Callable[[int, str, int], None],
        send_burn: Callable[[int, str, int], None],
        needs_plan: Callable[[], None],
        forecast: Forecaster,
        fence: Fence,
        *,
        kept_percent: float = 0.0,
        buckets: Buckets | None = None,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        now = clock()
        self.pools = {spec: Pool(spec, plan, kept_percent, now) for spec, plan in pools.items()}
        self.fence = fence
        self._clock = clock
        self._send_draw = send_draw
        self._send_burn = send_burn
        self._needs_plan = needs_plan
        self._forecast = forecast
        self._buckets = buckets or Buckets()
        self.draw_times = Histogram(_DRAW_EDGES)  # from a draw's order until its pairs are here
        self.replanned = trio.Event()  # set when pools get other settings, and replaced

    def replan(self, pools: Mapping[str, PoolPlan], kept_percent: float, rules: Sequence[Rule]) -> None:
        """Other settings for the pools from now on; ``pools`` has all of them. No pair is burnt for it, and
        nobody who waits loses his place, or his time."""
        self._buckets.change(rules)
        now = self._clock()
        for spec, plan in pools.items():
            pool = self.pools[spec]
            pool.replan(plan, kept_percent, now)
            self._serve_waiters(pool, now)
            self._draw_ahead(pool, now)
        self._needs_plan()
        self.replanned.set()
        self.replanned = trio.Event()

    # --- giving pairs out

    def take_nowait(self, spec: str, who: Identity) -> Pair | None:
        """A pair that now belongs to the caller, who must ``issue`` or ``burn`` it; None: ``join_queue``.

        Raises ``ThrottlingException`` (``rate_limited``) for a user who takes pairs too fast.
        """
        pool, now = self.pools[spec], self._clock()
        desk = pool.desk
        self.fence.stands()  # if not, the ready sets are empty now
        desk.asked(who.uid, now)
        if self._buckets.rules and (wait_s := self._buckets.take(who.uid, spec, now)):
            raise refusals.too_fast(spec, wait_s)
        if not pool.ready or not desk.may_take(who.uid, pool.at_hand, now):
            return None
        if pool.ready[0].generation != self.fence.number:
            # Burning them has failed half-way: a defect, and no pair is given out for it.
            self.burn_ready("copied")
            return None
        pair = self._take(pool, who)
        try:
            if desk.queue:
                self._serve_waiters(
                    pool, now
                )  # with each debt more, one who was barred owes less than others
            if len(pool.ready) * 2 <= pool.ready_target:
                self._draw_ahead(pool, now)
            self._needs_plan()
        except BaseException:
            self.burn(spec, "request_failed")
            raise
        return pair

    def join_queue(self, spec: str, wait_s: float, who: Identity, recheck: Callable[[], None]) -> Waiter:
        """A place in the queue for a pair, after ``take_nowait`` had none; it must be passed to ``wait``.

        ``wait_s`` is how long to wait for a pair to be made; one that a shard holds is waited for anyway.
        ``recheck`` is called when a pair is there, and what it raises refuses the request: no pair is
        burnt for a key that was disabled meanwhile.
        Raises ``ThrottlingException`` (``pool_dry``, ``rate_limited``, ``overloaded``), at once if there is
        no pair to be expected within ``wait_s``.
        """
        try:
            return self._join_queue(self.pools[spec], wait_s, who, recheck)
        except KpcacheError:
            self._buckets.give_back(who.uid, spec, self._buckets.era)
            raise

    def _join_queue(self, pool: Pool, wait_s: float, who: Identity, recheck: Callable[[], None]) -> Waiter:
        spec, now = pool.spec, self._clock()
        dry, may = pool.is_dry(now), pool.desk.may_take(who.uid, pool.at_hand, now)
        pool.book.dry += dry
        pool.book.kept_back += not dry and not may
        pool.book.dry_while_held += not dry and may
        if dry or not may:
            forecast = self._forecast(spec, pool.desk.ahead_of(who, pool.at_hand, now))
            if wait_s <= 0 or (forecast is not None and forecast.at_best_s > wait_s):
                raise self._late(pool, may, forecast)
            deadline = now + wait_s
        else:
            deadline = now + max(wait_s, DRAW_GRACE_S)
        self._require_place(pool, who)
        waiter = Waiter(
            spec,
            who,
            now,
            deadline,
            recheck,
            lambda: self._late(pool, may, self._forecast_for(pool, who)),
            era=self._buckets.era,
        )
        pool.desk.queue.put(who, waiter)
        self._serve_waiters(pool, now)
        self._draw_ahead(pool, now)
        return waiter

    def _require_place(self, pool: Pool, who: Identity) -> None:
        """A place in the queue, if need be that of a user who has more of them."""
        full = pool.desk.may_queue(who.uid)
        if full and (last := pool.desk.place_for(who.uid)):
            last.refusal = refusals.overloaded(f"others wait for {pool.spec} who have fewer requests", None)
            last.woken.set()
        elif full:
            behind_all = self._forecast(pool.spec, len(pool.desk.queue))
            raise refusals.overloaded(f"{full} for {pool.spec}", behind_all.served_s if behind_all else None)

    def _late(self, pool: Pool, may: bool, forecast: Forecast | None) -> KpcacheError:
        """The refusal of a request for which there is no pair in time."""
        again_s = forecast.served_s if forecast else None
        if not may and pool.at_hand:
            return refusals.kept_back(pool.spec, again_s)
        pool.desk.missed()
        return refusals.dry(pool.spec, again_s)

    def _forecast_for(self, pool: Pool, who: Identity) -> Forecast | None:
        """For a request that this client would make now."""
        return self._forecast(pool.spec, pool.desk.ahead_of(who, pool.at_hand, self._clock()))

    async def wait(self, waiter: Waiter) -> Pair:
        """The pair that a place in the queue leads to, like ``take_nowait``.

        Raises ``ThrottlingException`` when its time is over, or what ``dismiss_queues`` says.
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
                self._leave_queue(waiter)
            raise
        finally:
            pool.queue_times.observe(max(self._clock() - waiter.since, 0.0))
        if waiter.pair is None:
            self._leave_queue(waiter)
            raise waiter.refusal or waiter.late()
        return waiter.pair

    def dismiss_queues(self, refusal: Callable[[], KpcacheError]) -> None:
        """Have all who wait be refused now: no pair will be given out for them.

        Each gets a refusal of its own: an exception that many tasks raise collects a traceback from each.
        """
        for pool in self.pools.values():
            while waiter := pool.desk.queue.pop(lambda _: True):
                waiter.refusal = refusal()
                waiter.woken.set()

    def _take(self, pool: Pool, who: Identity) -> Pair:
        """Take before build: from here on the pair is in no place that another request could reach."""
        pair = pool.ready.popleft()
        pool.book.move(State.READY, State.TAKEN)
        pool.desk.took(who.uid)
        return pair

    def _leave_queue(self, waiter: Waiter) -> None:
        """Without a pair: what it took of the limits is given back."""
        self.pools[waiter.spec].desk.queue.remove(waiter.who, waiter)
        self._buckets.give_back(waiter.who.uid, waiter.spec, waiter.era)

    def issue(self, spec: str) -> None:
        """A taken pair's answer has been handed to the kernel, whole."""
        self.pools[spec].book.move(State.TAKEN, State.ISSUED)

    def burn(self, spec: str, reason: str) -> None:
        """A taken pair will not reach its client; nobody else gets it."""
        self.pools[spec].book.discard(State.TAKEN, reason)

    # --- taking pairs in

    def hold(self, shard: int, spec: str, count: int) -> None:
        """A shard may hold ``count`` more pairs (already recorded), just made."""
        pool, now = self.pools[spec], self._clock()
        pool.book.move(State.RECORDED, State.HELD, count)
        pool.held[shard] = pool.held.get(shard, 0) + count
        pool.ages_of(shard).add(now, count)
        pool.reached = max(pool.reached, pool.book.available)
        pool.desk.made(count, max(pool.target - pool.book.available, 0))
        self._serve_waiters(pool, now)
        self._draw_ahead(pool, now)

    def restore(self, shard: int, spec: str, ages_s: Sequence[float]) -> None:
        """A shard holds pairs again that waited out a restart in the reserve, of these ages, oldest first.

        They may be more than the target, and are kept all the same.
        """
        pool, now = self.pools[spec], self._clock()
        pool.book.restore(len(ages_s))
        pool.held[shard] = pool.held.get(shard, 0) + len(ages_s)
        line = pool.ages_of(shard)
        for age_s in ages_s:
            line.add(now - age_s, 1)
        pool.reached = max(pool.reached, pool.book.available)
        self._serve_waiters(pool, now)
        self._draw_ahead(pool, now)

    def receive(self, shard: int, spec: str, pairs: Iterable[Pair]) -> int:
        """A draw has arrived whole: make its pairs ready, or give them to those who wait.

        Returns how many were damaged on the way and burnt.
        """
        pool, now = self.pools[spec], self._clock()
        asked, damaged = pool.drawing.pop(shard, 0), 0
        self.draw_times.observe(max(now - pool.drawing_since.pop(shard, now), 0.0))
        ages = pool.ages_of(shard).take(asked)
        pool.held[shard] -= asked
        pool.book.move(State.HELD, State.DRAWN, asked)
        pool.ready_ages.keep(len(pool.ready))
        for pair, made in zip(pairs, ages, strict=True):
            if pair.spec != spec or not pair.is_intact():
                pool.book.discard(State.DRAWN, "damaged")
                damaged += 1
            elif pair.generation != self.fence.number:
                pool.book.discard(State.DRAWN, "copied")
            else:
                pool.book.move(State.DRAWN, State.READY)
                pool.ready.append(pair)
                pool.ready_ages.add(made, 1)
        self.retire(pool, now)
        self._serve_waiters(pool, now)
        self._draw_ahead(pool, now)
        self._needs_plan()
        return damaged

    def lose_shard(self, shard: int, reason: str = "worker_lost") -> None:
        """A shard is gone, and with it what it held and what it was about to hand over."""
        for pool in self.pools.values():
            pool.drawing.pop(shard, None)
            pool.held_ages.pop(shard, None)
            lost = pool.held.pop(shard, 0)
            if lost:
                pool.book.discard(State.HELD, reason, lost)
            self._draw_ahead(pool, self._clock())
        self._needs_plan()

    @property
    def taken(self) -> int:
        """Pairs in answers that the kernel has not taken yet."""
        return sum(pool.book.taken for pool in self.pools.values())

    def burn_ready(self, reason: str) -> None:
        """Burn all ready sets."""
        for pool in self.pools.values():
            if pool.ready:
                pool.book.discard(State.READY, reason, len(pool.ready))
                pool.ready.clear()

    def retire(self, pool: Pool, now: float) -> None:
        """Burn what is older than the pool's ``max_age_s``: what is ready here, what shards hold there."""
        if not pool.max_age_s:
            return
        before = now - pool.max_age_s
        pool.ready_ages.keep(len(pool.ready))
        burnt = pool.book.discarded["too_old"]
        if old := pool.ready_ages.made_by(before):
            for _ in range(old):
                pool.ready.popleft()
            pool.book.discard(State.READY, "too_old", old)
        for shard, line in pool.held_ages.items():
            # What a draw under way has is gone from there, and judged when it comes in.
            under_way = pool.drawing.get(shard, 0)
            if (old := line.made_by(before) - under_way) > 0:
                line.remove_behind(under_way, old)
                pool.held[shard] -= old
                pool.book.discard(State.HELD, "too_old", old)
                self._send_burn(shard, pool.spec, old)
        if pool.book.discarded["too_old"] != burnt:
            self._needs_plan()

    def _serve_waiters(self, pool: Pool, now: float) -> None:
        if pool.ready and pool.desk.queue:
            self.fence.stands()
        while pool.ready and (waiter := pool.desk.next_in_turn(pool.at_hand, now)):
            try:
                waiter.recheck()
            except KpcacheError as refusal:
                waiter.refusal = refusal
            else:
                waiter.pair = self._take(pool, waiter.who)
            waiter.woken.set()

    def _draw_ahead(self, pool: Pool, now: float) -> None:
        """Ask shards for what the ready set lacks, before it is needed."""
        waiting = pool.desk.servable(pool.at_hand, now)
        coming = len(pool.ready) + sum(pool.drawing.values())
        missing = pool.ready_target + waiting - coming
        if missing > 0 and (waiting or coming * 2 <= pool.ready_target):
            for shard, count in refill.draws(missing, pool.held, pool.drawing):
                pool.drawing[shard] = count
                pool.drawing_since[shard] = now
                self._send_draw(shard, pool.spec, count)
        if pool.desk.queue:
            self._needs_plan()
