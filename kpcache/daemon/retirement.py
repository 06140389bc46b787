"""Burns pairs that are older than their pool's ``max_age_s``, in time; asleep where no pool has one."""

import math

import trio

from kpcache.daemon.stock import Stock

_LEAST_SLEEP_S = 0.1


async def retire_old(stock: Stock) -> None:
    """Until cancelled. A pair is gone from the pool within a tenth of a second after its time."""
    while True:
        aging = [pool for pool in stock.pools.values() if pool.max_age_s]
        now = trio.current_time()
        for pool in aging:
            stock.retire(pool, now)
        # Whatever comes meanwhile is younger than what was there, or is as young as can be. What a draw has
        # that is under way may be older, and is judged when it comes.
        due = min((min(pool.oldest(), now) + pool.max_age_s for pool in aging), default=math.inf)
        with trio.move_on_at(max(due, now + _LEAST_SLEEP_S)):
            await stock.replanned.wait()
