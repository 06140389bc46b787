"""One spec's pool as the daemon sees it: its ready set, what shards hold of it, and who waits for a pair."""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from kpcache.core.pair import Pair
from kpcache.core.pool import PoolBook
from kpcache.errors import KpcacheError

# The daemon holds few private keys itself, yet enough to answer while a draw (about a millisecond, ten
# under load) is under way.
MAX_READY = 64


@dataclass(slots=True, eq=False)
class Waiter:
    """A request in the queue until ``deadline`` (trio's clock); ``pair`` or ``refusal`` ends its wait.

    ``recheck`` raises ``KpcacheError`` if the request would no longer succeed.
    """

    spec: str
    uid: int
    deadline: float
    recheck: Callable[[], None]
    woken: trio.Event = field(default_factory=trio.Event)
    pair: Pair | None = None
    refusal: KpcacheError | None = None


@dataclass(slots=True)
class Pool:
    """One spec's pool. ``held`` and ``drawing`` count pairs by shard; drawn ones are still in ``held``
    until they arrive."""

    spec: str
    target: int
    low_water: int
    book: PoolBook = field(default_factory=PoolBook)
    ready: deque[Pair] = field(default_factory=deque)
    held: dict[int, int] = field(default_factory=dict)
    drawing: dict[int, int] = field(default_factory=dict)
    # The queue. Not a plain dict: that steps over the holes left in front, so each next pop would cost more.
    waiters: OrderedDict[Waiter, None] = field(default_factory=OrderedDict)
    waiting: Counter[int] = field(default_factory=Counter)  # places in the queue, by user

    @property
    def ready_target(self) -> int:
        return min(MAX_READY, -(-self.target // 4))

    @property
    def is_dry(self) -> bool:
        """No pair at hand for one more request: what is ready or held is promised to those who wait."""
        return len(self.ready) + sum(self.held.values()) <= len(self.waiters)

    def enqueue(self, waiter: Waiter) -> None:
        self.waiters[waiter] = None
        self.waiting[waiter.uid] += 1

    def next_waiter(self) -> Waiter:
        """Take who has waited longest out of the queue."""
        waiter = next(iter(self.waiters))
        self.leave(waiter)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Take ``waiter`` out of the queue, if it is still there."""
        if waiter in self.waiters:
            del self.waiters[waiter]
            self.waiting[waiter.uid] -= 1
            if self.waiting[waiter.uid] == 0:
                del self.waiting[waiter.uid]
