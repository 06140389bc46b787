"""What there is at a moment: pairs by spec and shard, makers with their orders, requests."""

import enum
import math
import random
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from kpcache.core.specs import SPECS
from kpcache.core.targets import SERVICE_VARIATION

# An RSA key's time as a part that all keys take and an exponential one: the search for primes is nearly
# geometric. The exponential's share of the mean gives the squared coefficient of variation.
_EXPONENTIAL_SHARE: Final = math.sqrt(SERVICE_VARIATION)
# The other specs' keys all take the same steps; what differs is the machine's mood.
_UNEVEN: Final = 0.1


class Arrival(NamedTuple):
    """Somebody asks for a pair. ``at_s`` counts from the start of the load."""

    at_s: float
    uid: int
    spec: str
    wait_s: float


class Loss(NamedTuple):
    """A shard goes with all that it holds and its makers, and comes back empty."""

    at_s: float
    shard: int
    back_s: float


class PoolSize(NamedTuple):
    """A pool's watermarks, in pairs."""

    target: int
    low_water: int


@dataclass(frozen=True)
class Machine:
    """``cores`` makers, spread over ``shards``; ``cost_s`` are the mean CPU seconds of a pair by spec."""

    cores: int
    shards: int
    cost_s: Mapping[str, float]


class Ending(enum.Enum):
    """What became of a request."""

    GIVEN = "given"
    REFUSED = "refused"  # at once
    TIMED_OUT = "timed out"


@dataclass(slots=True, eq=False)
class Request:
    """``found``: there was a pair at once. ``ended_s`` is the time at which ``ending`` was known."""

    at_s: float
    uid: int
    spec: str
    wait_s: float
    found: bool = False
    ending: Ending | None = None
    ended_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Order:
    """What a maker, by its number, is to make."""

    maker: int
    spec: str
    count: int


@dataclass(slots=True)
class Work:
    """An order placed; ``due``: pairs of it to come."""

    spec: str
    due: int


@dataclass(slots=True)
class Maker:
    """``life`` counts its starts: what an earlier life had begun comes to nothing. ``begun_s``: since when
    it has been at the pairs under way. ``last_spec``: of its last order, to count switches."""

    shard: int
    alive: bool = True
    proved: bool = False
    life: int = 0
    begun_s: float = 0.0
    last_spec: str = ""
    work: deque[Work] = field(default_factory=deque)


class World:
    """The rules look at it, the engine alone changes it."""

    def __init__(self, machine: Machine, specs: Iterable[str]) -> None:
        self.machine = machine
        self.makers = [Maker(number % machine.shards) for number in range(machine.cores)]
        self._held = {spec: [0] * machine.shards for spec in specs}
        self.at_hand = dict.fromkeys(self._held, 0)
        self.on_order = dict.fromkeys(self._held, 0)

    @property
    def alive(self) -> int:
        """How many makers there are at present."""
        return sum(maker.alive for maker in self.makers)

    def with_orders(self, count: int) -> list[tuple[int, Maker]]:
        """The makers that have so many orders, with their numbers."""
        return [
            (number, maker)
            for number, maker in enumerate(self.makers)
            if len(maker.work) == count and maker.alive
        ]

    def place(self, order: Order) -> None:
        """An order is on its way."""
        self.makers[order.maker].work.append(Work(order.spec, order.count))
        self.on_order[order.spec] += order.count

    def hand_over(self, maker: Maker, count: int) -> bool:
        """A maker has made some pairs of its first order; whether that is done."""
        work = maker.work[0]
        work.due -= count
        self.on_order[work.spec] -= count
        self.put(work.spec, maker.shard, count)
        if not work.due:
            maker.work.popleft()
        return not work.due

    def put(self, spec: str, shard: int, count: int) -> None:
        """Pairs that are there from now on."""
        self._held[spec][shard] += count
        self.at_hand[spec] += count

    def take(self, spec: str) -> None:
        """One pair less, of the fullest shard, as draws are made."""
        held = self._held[spec]
        held[held.index(max(held))] -= 1
        self.at_hand[spec] -= 1

    def lose(self, shard: int) -> tuple[dict[str, int], dict[str, int]]:
        """A shard is gone: the pairs it held, and those on order with its makers, by spec."""
        held = {spec: counts[shard] for spec, counts in self._held.items()}
        ordered = dict.fromkeys(self._held, 0)
        for spec, count in held.items():
            self.put(spec, shard, -count)
        for maker in self.of_shard(shard):
            for work in maker.work:
                ordered[work.spec] += work.due
                self.on_order[work.spec] -= work.due
            maker.work.clear()
            maker.alive, maker.proved, maker.last_spec = False, False, ""
            maker.life += 1
        return held, ordered

    def of_shard(self, shard: int) -> list[Maker]:
        """A shard's makers."""
        return [maker for maker in self.makers if maker.shard == shard]


def cpu_s(spec: str, mean_s: float, count: int, luck: random.Random) -> float:
    """The CPU seconds that some pairs happen to take."""
    if SPECS[spec].family == "rsa":
        rate = 1 / (mean_s * _EXPONENTIAL_SHARE)
        return sum(mean_s * (1 - _EXPONENTIAL_SHARE) + luck.expovariate(rate) for _ in range(count))
    return count * mean_s * luck.uniform(1 - _UNEVEN, 1 + _UNEVEN)
