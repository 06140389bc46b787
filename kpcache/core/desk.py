"""Where one pool's pairs are asked for: who may have one at once, who waits, and whose turn is next.

Without the pairs: how many there are (``at_hand``, held in shards or ready) is the caller's to know. The
daemon's stock and the simulator stand behind the same desk.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final, Generic, TypeVar

from kpcache.core.demand import Demand
from kpcache.core.fair_queue import FairQueue, Identity
from kpcache.core.refill import PoolView
from kpcache.core.shares import Shares

T = TypeVar("T")

# What one pool lets wait at once, one user half of it; a caller beyond is told at once. Bounds memory.
MAX_WAITING: Final = 4096
# So many users are told apart in a plan, to bound its time; among more, nobody's share is large.
_LOOKS: Final = 64


class Desk(Generic[T]):
    """``T`` is a request that waits. ``now`` is in monotonic seconds, ``target`` in pairs."""

    __slots__ = ("_unnoted", "demand", "kept", "queue", "shares", "target")

    def __init__(self, target: int, kept_percent: float, now: float) -> None:
        """``kept_percent``: see ``Shares``. A pool without a target keeps nothing for anybody."""
        self.queue: FairQueue[T] = FairQueue()
        self.shares = Shares(kept_percent)
        self.resize(target, kept_percent)
        self.demand = Demand(now)
        self._unnoted = 0

    def resize(self, target: int, kept_percent: float | None = None) -> None:
        """Another target from now on, and another share that is kept back, if one is given."""
        self.target = target
        if kept_percent is not None:
            self.shares.kept_percent = kept_percent
        self.kept = self.shares.kept(target)

    # --- each request

    def asked(self, uid: int, now: float) -> None:
        """A request has come. It counts as demand when it is given a pair, or misses one: what a limit or
        another one's share keeps from a user is not to be made for it."""
        self.shares.asked(uid, now)

    def may_take(self, uid: int, at_hand: int, now: float) -> bool:
        """Whether this user may have one of so many pairs."""
        return at_hand > self.kept or not self.kept or self.shares.may_take_the_last(uid, now)

    def took(self, uid: int) -> None:
        """A pair was given to this user. Cheap: what is learned of it is worked out when the plan asks."""
        self._unnoted += 1
        self.shares.took(uid)

    def missed(self) -> None:
        """A request that could have had a pair found none, and was told so."""
        self._unnoted += 1

    def may_queue(self, uid: int) -> str:
        """Empty, or why there is no place for one more. One can be made: ``place_for``."""
        if self.queue.waiting(uid) >= MAX_WAITING // 2:
            return f"{MAX_WAITING // 2} requests of this user wait already"
        return f"{MAX_WAITING} requests wait already" if len(self.queue) >= MAX_WAITING else ""

    def place_for(self, uid: int) -> T | None:
        """When the queue is full: the last one of the user who has the most in it, taken out, if this user
        has fewer. So nobody keeps others out by keeping every place taken."""
        return self.queue.pop_last_of_heaviest(self.queue.waiting(uid) + 1)

    def next_in_turn(self, at_hand: int, now: float) -> T | None:
        """Take out of the queue whoever is to have one of so many pairs; None if nobody may."""
        return self.queue.pop(lambda uid: self.may_take(uid, at_hand, now))

    # --- the plan

    def note(self, now: float) -> None:
        """Learn from what was given and missed since."""
        if self._unnoted:
            self.demand.note(now, self._unnoted)
            self._unnoted = 0

    def view(
        self, pool: PoolView, at_hand: int, owed_s: Callable[[int], float], now: float
    ) -> PoolView | None:
        """``pool`` with what is known here of demand and waiters; None if no pair is missing in it.

        ``owed_s``: what makers owe for a user in all pools, in CPU seconds.
        """
        self.note(now)
        # Of a pool without a target, pairs are missing only for those who wait.
        self.shares.settle(max(self.target + len(self.queue) - pool.available, 0))
        waiting = self.servable(at_hand, now)
        view = replace(pool, target=self.target, waiting=waiting, rate=self.demand.rate(now))
        if not view.missing:
            return None
        return replace(view, burden_s=self.least_burden(owed_s)) if waiting else view

    def made(self, count: int, missing: int) -> None:
        """``count`` new pairs are there, and ``missing`` are missing still."""
        self.shares.repaid(count)
        self.shares.settle(missing)

    def servable(self, at_hand: int, now: float) -> int:
        """How many of those who wait may have a pair, be it one of so many or one that must be made first.

        The others wait until more are there than are kept back from them.
        """
        queue, spare = self.queue, max(at_hand - self.kept, 0)
        if spare >= len(queue) or not self.kept or len(queue.users) > _LOOKS:
            return len(queue)
        anyway = sum(queue.waiting(uid) for uid in queue.users if self.shares.may_take_the_last(uid, now))
        return anyway + min(len(queue) - anyway, spare)

    def least_burden(self, owed_s: Callable[[int], float]) -> float:
        """Of those who wait, the one for whom makers owe the least: how much, by ``owed_s`` of a user."""
        return min(map(owed_s, self.queue.users[:_LOOKS]), default=0.0)

    def ahead_of(self, who: Identity, at_hand: int, now: float) -> int:
        """How many pairs must be made before one that ``who`` waits for from now on."""
        kept = 0 if self.shares.may_take_the_last(who.uid, now) else self.kept
        return max(self.queue.ahead_of_next(who) + kept - at_hand, 0)
