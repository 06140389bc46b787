"""What each maker makes next, and what the daemon draws from which shard: decided here, done elsewhere.

The order of need:

1. A pool that has missed pairs for ``PATIENCE_S`` with none in the making: so none starves, whatever
   clients ask of the others. A pool emptied as fast as it is filled would stay the emptiest for ever.
2. Waiting clients. Among their pools the cheapest pair goes first, since that shortens the sum of
   the waits (shortest job first); a pool gets no more makers than it has pairs missing.
3. The pool that is emptiest for its size: below the low watermark before above it, and by the
   filled share within each. At equal need the costlier spec goes first (RSA before EC, RSA_4096
   before RSA_2048): a pair of it saves its client the most time.

Two rules keep a long key from standing in the way, as no key can be cut short:

- A maker that has proved nothing yet gets the cheapest missing pairs first: a replacement is known to
  work within milliseconds, and not after the second that an RSA_4096 takes.
- While cheap pools are below target, one maker is kept from long keys if there are two or more.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

# An order for cheap pairs is cut so that a maker is free again after this CPU time, to be re-planned.
ORDER_CPU_S = 0.05
MAX_ORDER_PAIRS = 64
# A key that takes longer than this is long: a client that waits behind it notices.
LONG_KEY_S = 0.15
# One draw's most: of RSA_4096 (3 KB a pair) under a megabyte, which a pipe takes in a few milliseconds.
MAX_DRAW_PAIRS = 256
# Long enough that orders by need are the rule; a client of a neglected pool waits little longer than this.
PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class PoolView:
    """What the plan needs to know of one pool. Counts are pairs; ``cost_s`` is CPU seconds per pair.

    ``available`` can still reach a client, ``on_order`` is being made, ``waiting`` are the clients that wait;
    ``neglected_s``: for how long pairs have been missing and none been made.
    """

    spec: str
    available: int
    on_order: int
    target: int
    low_water: int
    waiting: int
    cost_s: float
    neglected_s: float = 0.0

    @property
    def missing(self) -> int:
        """Pairs to order: up to target, or for those who wait, whichever is more."""
        return max(self.target + self.waiting - self.available - self.on_order, 0)


@dataclass(frozen=True, slots=True)
class MakerView:
    """An idle maker. ``proved`` tells whether it has handed over a pair since it started."""

    shard: int
    maker: int
    proved: bool


@dataclass(frozen=True, slots=True)
class Order:
    """What one maker is to make: one order at a time."""

    shard: int
    maker: int
    spec: str
    count: int


def plan(pools: Iterable[PoolView], idle: Sequence[MakerView], long_orders: int, makers: int) -> list[Order]:
    """Orders for idle makers; makers for whom nothing is missing get none.

    ``long_orders``: makers busy with a long key; ``makers``: all that are alive, busy ones included.
    """
    wanted = {pool.spec: pool for pool in pools if pool.missing}
    orders: list[Order] = []
    for maker in sorted(idle, key=lambda view: (view.shard, view.maker)):
        cheap_missing = any(pool.cost_s <= LONG_KEY_S for pool in wanted.values())
        may_be_long = not cheap_missing or makers < 2 or long_orders < makers - 1
        candidates = [pool for pool in wanted.values() if may_be_long or pool.cost_s <= LONG_KEY_S]
        if not candidates:
            break
        pool = min(candidates, key=_probe_rank if not maker.proved else _rank)
        count = order_size(pool)
        orders.append(Order(maker.shard, maker.maker, pool.spec, count))
        long_orders += pool.cost_s > LONG_KEY_S
        wanted.pop(pool.spec)
        rest = replace(pool, on_order=pool.on_order + count, neglected_s=0.0)
        if rest.missing:
            wanted[pool.spec] = rest
    return orders


def follow_ups(
    pools: Iterable[PoolView], busy: Sequence[MakerView], long_orders: int, makers: int
) -> list[Order]:
    """A second order for makers that work on a short one, so that they need not sleep in between.

    A maker that has just woken keeps its CPU until the next tick of the clock (4 ms), even from a daemon
    with an answer to give: that befell 0.16 % of answers while every core made RSA_2048. An order that
    waits can not be planned anew, so there is none while clients wait, and none for a maker whose turn it
    is to make a long key.
    """
    views = list(pools)
    if any(pool.waiting for pool in views):
        return []
    short = {pool.spec for pool in views if pool.cost_s <= LONG_KEY_S}
    return [order for order in plan(views, busy, long_orders, makers) if order.spec in short]


def order_size(pool: PoolView) -> int:
    """As many pairs as ``ORDER_CPU_S`` makes, at least one, at most what is missing."""
    affordable = min(ORDER_CPU_S / pool.cost_s, MAX_ORDER_PAIRS) if pool.cost_s > 0 else MAX_ORDER_PAIRS
    return max(1, min(int(affordable), pool.missing))


def _rank(pool: PoolView) -> tuple[float, ...]:
    """Smaller is sooner."""
    if pool.neglected_s >= PATIENCE_S:
        return (0, -pool.neglected_s)
    coming = pool.available + pool.on_order
    if pool.waiting > coming:
        return (1, pool.cost_s)
    have = coming - pool.waiting
    if have < pool.low_water:
        return (2, have / pool.low_water, -pool.cost_s)
    return (3, have / max(pool.target, 1), -pool.cost_s)


def _probe_rank(pool: PoolView) -> tuple[float, ...]:
    return (pool.cost_s,)


def draws(missing: int, held: Mapping[int, int], under_way: Iterable[int]) -> list[tuple[int, int]]:
    """How many pairs to draw from which shard, to bring a ready set up by ``missing``: (shard, count).

    ``held`` counts each shard's pairs, also those that it was asked for and has not handed over; a shard in
    ``under_way`` still owes such an answer for this pool and is not asked again. The fullest goes first, so
    that shards empty evenly and the loss of one costs the fewest pairs.
    """
    busy = set(under_way)
    result: list[tuple[int, int]] = []
    for shard, count in sorted(held.items(), key=lambda item: (-item[1], item[0])):
        if missing <= 0:
            break
        if count > 0 and shard not in busy:
            share = min(count, missing, MAX_DRAW_PAIRS)
            result.append((shard, share))
            missing -= share
    return result
