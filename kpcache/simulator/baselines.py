"""How others run their pools, for comparison: on the same machine, with pools of the same sizes.

Both know no users and refuse nobody: who finds no pair waits, first in, first out.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from kpcache.simulator.world import Order, PoolSize, Request, World

# scylla-operator's --crypto-key-buffer-delay.
DELAY_S: Final = 0.2


class _Plain:
    """What both have in common."""

    def __init__(self, world: World, pools: Mapping[str, PoolSize]) -> None:
        self._world = world
        self._pools = pools
        self._queues: dict[str, deque[Request]] = {spec: deque() for spec in pools}

    def asks(self, request: Request, now: float) -> bool | None:  # noqa: ARG002 - of the interface
        if self._world.at_hand[request.spec]:
            return True
        self._queues[request.spec].append(request)
        return None

    def next_waiter(self, spec: str, now: float) -> Request | None:  # noqa: ARG002 - of the interface
        queue = self._queues[spec]
        return queue.popleft() if queue else None

    def forget(self, request: Request) -> None:
        self._queues[request.spec].remove(request)

    def took(self, request: Request) -> None:
        """Nothing to learn."""

    def made(self, spec: str, count: int, cpu_s: float) -> None:
        """Nothing to learn."""

    def lost(self, spec: str, count: int) -> None:
        """Nothing to learn."""

    def wake_s(self, now: float) -> float:  # noqa: ARG002 - of the interface
        return math.inf

    def _idle(self) -> list[int]:
        return [number for number, _ in self._world.with_orders(0)]


class RefillOnTake(_Plain):
    """A fixed buffer refilled on take, as Teleport's precomputed RSA keys and Chef's keygen cache: each take
    starts one key at once, on any free core; the keys are made in the order of the takes."""

    def __init__(self, world: World, pools: Mapping[str, PoolSize]) -> None:
        super().__init__(world, pools)
        self._due: deque[str] = deque()

    def took(self, request: Request) -> None:
        self._due.append(request.spec)

    def lost(self, spec: str, count: int) -> None:
        self._due.extend([spec] * count)

    def plan(self, now: float) -> Sequence[Order]:  # noqa: ARG002 - of the interface
        return [Order(number, self._due.popleft(), 1) for number in self._idle()[: len(self._due)]]


class MinMaxDelay(_Plain):
    """scylla-operator's rule: one worker for each spec, which makes keys without a pause up to the low
    watermark, and from there to the target one in each ``DELAY_S``."""

    def __init__(self, world: World, pools: Mapping[str, PoolSize]) -> None:
        super().__init__(world, pools)
        self._begun_s = dict.fromkeys(pools, -math.inf)

    def plan(self, now: float) -> Sequence[Order]:
        due = sorted(
            (spec for spec in self._wanting() if self._due_s(spec) <= now),
            key=lambda spec: (self._begun_s[spec], spec),
        )
        orders = [Order(number, spec, 1) for number, spec in zip(self._idle(), due, strict=False)]
        for order in orders:
            self._begun_s[order.spec] = now
        return orders

    def wake_s(self, now: float) -> float:
        return min((at_s for spec in self._wanting() if (at_s := self._due_s(spec)) > now), default=math.inf)

    def _wanting(self) -> list[str]:
        """The specs whose pools are not full and whose workers rest."""
        return [
            spec
            for spec, size in self._pools.items()
            if not self._world.on_order[spec] and self._world.at_hand[spec] < size.target
        ]

    def _due_s(self, spec: str) -> float:
        if self._world.at_hand[spec] < self._pools[spec].low_water:
            return -math.inf
        return self._begun_s[spec] + DELAY_S
