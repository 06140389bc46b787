"""The metrics of pools and pairs: what there is, what became of the rest, and how long that took."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import trio
from prometheus_client.core import Metric

from kpcache.core.pool import REASONS, PoolBook
from kpcache.daemon.families import Samples, counter, flag, gauge, histogram
from kpcache.daemon.floor import Floor
from kpcache.daemon.pools import Pool
from kpcache.daemon.stock import Stock

_SPEC = ("spec",)


class Counts(NamedTuple):
    """One pool's book, at one moment."""

    ready: int
    held: int
    in_hand: int
    generated: int
    restored: int
    issued: int
    discarded: Counter[str]
    dry: int
    dry_while_held: int
    kept_back: int


def counts_of(stock: Stock) -> dict[str, Counts]:
    """Of each pool, at this moment."""
    return {spec: _counts(pool.book) for spec, pool in stock.pools.items()}


def _counts(book: PoolBook) -> Counts:
    return Counts(
        book.ready, book.held, book.in_hand, book.generated, book.restored, book.issued,
        book.discarded.copy(), book.dry, book.dry_while_held, book.kept_back,
    )  # fmt: skip


def pairs(counts: dict[str, Counts]) -> Iterator[Metric]:
    """generated + restored = issued + discarded + held + ready + in hand."""

    def of_each(what: Callable[[Counts], int]) -> Samples:
        return (((spec,), what(each)) for spec, each in counts.items())

    yield from gauge(
        "pool_pairs", "Pairs ready in the daemon, or held by its shards.", ("spec", "place"),
        (
            ((spec, place), number)
            for spec, each in counts.items()
            for place, number in (("ready", each.ready), ("held", each.held))
        ),
    )  # fmt: skip
    yield from gauge("pairs_in_hand", "Pairs between two places.", _SPEC, of_each(lambda each: each.in_hand))
    yield from counter(
        "pairs_generated_total", "Pairs made, unsound ones among them.", _SPEC,
        of_each(lambda each: each.generated),
    )  # fmt: skip
    yield from counter(
        "pairs_restored_total", "Pairs that are back from before a restart.", _SPEC,
        of_each(lambda each: each.restored),
    )  # fmt: skip
    yield from counter(
        "pairs_issued_total", "Pairs whose answer the kernel took.", _SPEC, of_each(lambda each: each.issued)
    )
    yield from counter(
        "pairs_discarded_total", "Pairs that were burnt.", ("spec", "reason"),
        (
            ((spec, reason), each.discarded[reason])
            for spec, each in counts.items()
            for reason in sorted(REASONS)
        ),
    )  # fmt: skip
    yield from counter(
        "pool_dry_total", "Requests that found no pair, ready or held, left for them.", _SPEC,
        of_each(lambda each: each.dry),
    )  # fmt: skip
    yield from counter(
        "pool_dry_while_held_total", "Requests that found none ready while shards held one for them.", _SPEC,
        of_each(lambda each: each.dry_while_held),
    )  # fmt: skip
    yield from counter(
        "pool_kept_back_total", "Requests that found none but those kept for other users.", _SPEC,
        of_each(lambda each: each.kept_back),
    )  # fmt: skip


def pools(stock: Stock, floor: Floor) -> Iterator[Metric]:
    """What each pool is to have, and how long what happens to it takes."""
    pools = {**stock.pools}

    def of_each(what: Callable[[Pool], float]) -> Samples:
        return (((spec,), what(pool)) for spec, pool in pools.items())

    yield from gauge("pool_target_pairs", "Pairs to keep.", _SPEC, of_each(lambda pool: pool.target))
    yield from gauge(
        "pool_low_water_pairs", "Below this a pool is refilled at full speed.", _SPEC,
        of_each(lambda pool: pool.low_water),
    )  # fmt: skip
    yield from gauge(
        "pool_waiting_requests", "Requests that wait for a pair.", _SPEC,
        of_each(lambda pool: len(pool.desk.queue)),
    )  # fmt: skip
    now = trio.current_time()
    yield from gauge(
        "oldest_pair_age_seconds", "Of the pairs that are held or ready, the oldest; none: no sample.",
        _SPEC, ((spec, age_s) for spec, age_s in of_each(lambda pool: now - pool.oldest()) if age_s >= 0),
    )  # fmt: skip
    yield from histogram(
        "queue_wait_seconds", "How long requests waited for a pair, however that ended.", _SPEC,
        [((spec,), pool.queue_times) for spec, pool in pools.items()],
    )  # fmt: skip
    yield from histogram(
        "keygen_duration_seconds", "Making and checking one sound pair, by the clock.", _SPEC,
        [((spec,), pool.keygen_times) for spec, pool in pools.items()],
    )  # fmt: skip
    yield from histogram(
        "draw_duration_seconds", "From the order to a shard until the batch is ready.", (),
        [((), stock.draw_times)],
    )  # fmt: skip
    yield from flag(
        "refill_held_back", "Pairs are missing that manners keep from being made now.",
        floor.manners["holding_back"],
    )  # fmt: skip
