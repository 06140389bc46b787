"""What each maker makes next, and what the daemon draws from which shard: decided here, done elsewhere.

The order of need:

1. A pool below its low watermark, or with clients waiting, for which nothing has been made for
   ``PATIENCE_S``: so none starves, whatever clients ask of the others. A pool emptied as fast as it is filled
   would stay the emptiest for ever.
2. Waiting clients. The pool goes first whose client has cost the makers the least (``Shares``), so that
   nobody's hundreds stand before another one's first; among equals the cheapest pair, since that shortens
   the sum of the waits (shortest job first). A pool gets no more makers than it has pairs missing.
3. Below the low watermark before above it, and within each the pool that will be empty soonest at the rate
   at which it is asked for. That saves the most waiting time for a CPU second: a pair saves its client the
   time that it takes to make, if it is needed, so cost and saving are in proportion, and what decides is
   how likely it is to be needed soon. At equal need the costlier spec goes first (RSA before EC, RSA_4096
   before RSA_2048): each pair of it saves its client the most.

Up to here makers work as fast as they can. Above the low watermark refill is leisurely: it takes no more
makers than ``core/manners`` leaves it.

The order is stable: how long a pool will last counts in powers of two, so a pool keeps its turn until it
has doubled that, and pools in the same need do not take turns with every pair.

Two rules keep a long key from standing in the way, as no key can be cut short:

- A maker that has proved nothing yet gets the cheapest missing pairs first: a replacement is known to
  work within milliseconds, and not after the second that an RSA_4096 takes.
- While cheap pools are below target, one maker is kept from long keys if there are two or more. So a client
  who finds a cheap pool dry waits behind cheap keys only, since a pool that is dry is below its target.
"""

import math
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
# What a pool is expected to be asked for before anybody has: its target in this time. Without any demand
# the emptiest for its size is then the neediest.
PRIOR_S = 300.0
# Pairs taken within this time are ordered together: an order for one alone costs more than a quick pair.
PLAN_INTERVAL_S = 0.02
# How far one measured key generation moves the estimate of its spec's cost.
COST_WEIGHT = 0.1
# A ready set: the pairs asked for in this time, since a draw takes a millisecond and ten under load; within
# these bounds, and at most a quarter of the target. The daemon is to hold few private keys itself.
READY_S = 0.1
MIN_READY = 16
MAX_READY = 256


@dataclass(frozen=True, slots=True)
class PoolView:
    """What the plan needs to know of one pool. Counts are pairs; ``cost_s`` is CPU seconds per pair.

    ``available`` can still reach a client, ``on_order`` is being made, ``waiting`` are the clients that wait
    and may be served; ``neglected_s``: for how long pairs have been missing and none been made; ``rate``:
    requests a second of late; ``burden_s``: the CPU seconds that makers owe on behalf of that one of the
    waiting users for whom they owe the least.
    """

    spec: str
    available: int
    on_order: int
    target: int
    low_water: int
    waiting: int
    cost_s: float
    neglected_s: float = 0.0
    rate: float = 0.0
    burden_s: float = 0.0

    @property
    def missing(self) -> int:
        """Pairs to order: up to target, or for those who wait, whichever is more."""
        return max(self.target + self.waiting - self.available - self.on_order, 0)

    @property
    def is_urgent(self) -> bool:
        """Whether manners must wait."""
        have = self.available + self.on_order - self.waiting
        return have < (self.low_water if self.target else 0)


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


@dataclass(frozen=True, slots=True)
class Crew:
    """All makers that are alive: how many, how many work on a long key, and how many more may be given
    something to do that is not urgent."""

    makers: int
    long_orders: int
    leisure: int


def plan(pools: Iterable[PoolView], idle: Sequence[MakerView], crew: Crew) -> list[Order]:
    """Orders for idle makers; makers for whom nothing is missing get none."""
    wanted = {pool.spec: pool for pool in pools if pool.missing}
    long_orders, leisure = crew.long_orders, crew.leisure
    orders: list[Order] = []
    for maker in sorted(idle, key=lambda view: (view.shard, view.maker)):
        allowed = [pool for pool in wanted.values() if leisure > 0 or pool.is_urgent]
        cheap_missing = any(pool.cost_s <= LONG_KEY_S for pool in allowed)
        may_be_long = not cheap_missing or crew.makers < 2 or long_orders < crew.makers - 1
        candidates = [pool for pool in allowed if may_be_long or pool.cost_s <= LONG_KEY_S]
        if not candidates:
            break
        pool = min(candidates, key=_rank if maker.proved else _probe_rank)
        count = order_size(pool)
        orders.append(Order(maker.shard, maker.maker, pool.spec, count))
        long_orders += pool.cost_s > LONG_KEY_S
        leisure -= not pool.is_urgent
        wanted.pop(pool.spec)
        rest = replace(pool, on_order=pool.on_order + count, neglected_s=0.0)
        if rest.missing:
            wanted[pool.spec] = rest
    return orders


def follow_ups(pools: Iterable[PoolView], busy: Sequence[MakerView], crew: Crew) -> list[Order]:
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
    return [order for order in plan(views, busy, crew) if order.spec in short]


def order_size(pool: PoolView) -> int:
    """As many pairs as ``ORDER_CPU_S`` makes, at least one, at most what is missing."""
    affordable = min(ORDER_CPU_S / pool.cost_s, MAX_ORDER_PAIRS) if pool.cost_s > 0 else MAX_ORDER_PAIRS
    return max(1, min(int(affordable), pool.missing))


def _rank(pool: PoolView) -> tuple[float | str, ...]:
    """Smaller is sooner. The name comes last, so that the order never depends on where a pool stands."""
    if pool.neglected_s >= PATIENCE_S and pool.is_urgent:
        return (0, -pool.neglected_s, pool.spec)
    have = pool.available + pool.on_order - pool.waiting
    if have < 0:
        return (1, _notch(pool.burden_s), pool.cost_s, pool.spec)
    lasts_s = have / (pool.rate + pool.target / PRIOR_S)
    return (2 if pool.is_urgent else 3, _notch(lasts_s), -pool.cost_s, pool.spec)


def _probe_rank(pool: PoolView) -> tuple[float | str, ...]:
    return (pool.cost_s, pool.spec)


def _notch(value: float) -> int:
    """The power of two just above a positive value; no small one is told from nothing."""
    return math.frexp(max(value, 1e-3))[1]


def ready_target(target: int, rate: float) -> int:
    """How many pairs of one spec the daemon holds itself, ready to be given out."""
    wanted = min(max(math.ceil(rate * READY_S), MIN_READY), MAX_READY)
    return min(wanted, -(-target // 4))


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
