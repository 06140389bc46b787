"""Burns pairs that are older than their pool's ``max_age_s``, in time; asleep where no pool has one."""

import trio

from kpcache.daemon.stock import Stock

_LEAST_SLEEP_S = 0.1


async def retire_old(stock: Stock) -> None:
    """Until cancelled. A pair is gone from the pool within a tenth of a second after its time."""
    aging = [pool for pool in stock.pools.values() if pool.max_age_s]
    if not aging:
        await trio.sleep_forever()
    while True:
        now = trio.current_time()
        for pool in aging:
            stock.retire(pool, now)
        # Whatever comes meanwhile is younger than what was there, or is as young as can be. What a draw has
        # that is under way may be older, and is judged when it comes.
        due = min(min(pool.oldest(), now) + pool.max_age_s for pool in aging)
        await trio.sleep_until(max(due, now + _LEAST_SLEEP_S))
