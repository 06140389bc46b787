"""One spec's pool as the daemon sees it: its ready set, what shards hold of it, and who waits for a pair."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from kpcache.core.ages import AgeLine
from kpcache.core.desk import Desk
from kpcache.core.fair_queue import Identity
from kpcache.core.histogram import Histogram, edges
from kpcache.core.pair import Pair
from kpcache.core.pool import PoolBook
from kpcache.core.readiness import Fill
from kpcache.core.refill import ready_target
from kpcache.core.targets import default_low_water
from kpcache.errors import KpcacheError

_KEYGEN_EDGES: Final = edges(50e-6, 50.0)
_QUEUE_EDGES: Final = edges(100e-6, 50.0)


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """A pool's settings. ``low_water`` None: a quarter of the target, whatever that is; ``max_age_s`` 0: no
    limit."""

    target: int
    low_water: int | None = None
    max_age_s: float = 0.0


@dataclass(slots=True, eq=False)
class Waiter:
    """A request in the queue since ``since`` and until ``deadline`` (trio's clock); ``pair`` or ``refusal``
    ends its wait.

    ``recheck`` raises ``KpcacheError`` if the request would no longer succeed; ``late`` is the refusal when
    its time is over.
    """

    spec: str
    who: Identity
    since: float
    deadline: float
    recheck: Callable[[], None]
    late: Callable[[], KpcacheError]
    woken: trio.Event = field(default_factory=trio.Event)
    pair: Pair | None = None
    refusal: KpcacheError | None = None
    era: int = 0  # of the limits (``Buckets``) when it took its tokens


class Pool:
    """One spec's pool. ``held`` and ``drawing`` count pairs by shard; drawn ones are still in ``held``
    until they arrive, and ``drawing_since`` knows when they were asked for. ``held_ages`` and ``ready_ages``
    know when they were made."""

    __slots__ = (
        "_low_water",
        "book",
        "desk",
        "drawing",
        "drawing_since",
        "held",
        "held_ages",
        "keygen_times",
        "max_age_s",
        "queue_times",
        "reached",
        "ready",
        "ready_ages",
        "ready_target",
        "spec",
    )  # fmt: skip

    def __init__(self, spec: str, plan: PoolPlan, kept_percent: float, now: float) -> None:
        """``kept_percent``: see ``core/shares``."""
        self.spec = spec
        self.max_age_s = plan.max_age_s
        self.book = PoolBook()
        self.desk: Desk[Waiter] = Desk(plan.target, kept_percent, now)
        self.ready: deque[Pair] = deque()
        self.held: dict[int, int] = {}
        self.drawing: dict[int, int] = {}
        self.drawing_since: dict[int, float] = {}
        self.held_ages: dict[int, AgeLine] = {}
        self.ready_ages = AgeLine()
        self.ready_target = ready_target(plan.target, 0.0)
        self.keygen_times = Histogram(_KEYGEN_EDGES)  # of each sound pair, by the clock of its maker
        self.queue_times = Histogram(_QUEUE_EDGES)  # of each request that waited, however that ended
        self.reached = plan.target  # the most pairs that it has had, or was to have at first
        self._low_water = plan.low_water

    def replan(self, plan: PoolPlan, kept_percent: float, now: float) -> None:
        """Other settings from now on. Pairs above a target that has fallen stay, to be given out: they cost
        what they will save, and the ready set is kept up while there are any."""
        stays_adaptive = self._low_water is None and plan.low_water is None
        if not stays_adaptive:
            self.reached = max(self.reached, plan.target)
        self.max_age_s = plan.max_age_s
        self._low_water = plan.low_water
        self.desk.resize(plan.target, kept_percent)
        self.ready_target = ready_target(max(plan.target, self.book.available), self.desk.demand.rate(now))

    @property
    def target(self) -> int:
        return self.desk.target

    @property
    def low_water(self) -> int:
        """Below this it is refilled at full speed. With an adaptive target a quarter of that, or of the most
        pairs that there have been: one that has just risen is filled at leisure."""
        if self._low_water is not None:
            return self._low_water
        return default_low_water(min(self.target, self.reached))

    @property
    def fill(self) -> Fill:
        return Fill(self.book.available, self.low_water, self.target)

    @property
    def at_hand(self) -> int:
        """Pairs that are ready or held."""
        return len(self.ready) + self.book.held

    def is_dry(self, now: float) -> bool:
        """No pair at hand for one more request: what is ready or held is promised to those who wait."""
        return self.at_hand <= self.desk.servable(self.at_hand, now)

    def ages_of(self, shard: int) -> AgeLine:
        """The ages of what this shard holds."""
        return self.held_ages.setdefault(shard, AgeLine())

    def oldest(self) -> float:
        """When the oldest pair that can still be given out was made, on trio's clock; infinity for none."""
        self.ready_ages.keep(len(self.ready))
        return min(self.ready_ages.oldest, *(line.oldest for line in self.held_ages.values()), float("inf"))
