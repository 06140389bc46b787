"""The guards that can be turned off, each to show that the checker would see what it keeps from happening.

A guard is against a fault. Where the fault must be planted for the guard to have anything to do, it can also
be planted alone: with the guard on nothing may then be found.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from bench.abuse.planting import PlantError, owner_of, plant

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]
Plants = tuple[tuple[str, str, Wrap], ...]  # role, target, what is put there


@dataclass(frozen=True, slots=True)
class Guard:
    """``off`` turns it off; ``fault`` is what it is against, if that does not happen by itself. ``copies``:
    that is a copy of the machine, which the harness pretends. ``puts_back``: that are sealed segments which
    somebody puts back after a restart, as the harness does."""

    off: Plants
    fault: Plants = field(default=())
    copies: bool = False
    puts_back: bool = False


def _leave_taken(_original: Callable[..., Any]) -> Callable[..., Any]:
    """Take before build: the pair stays where the next request finds it."""
    from kpcache.core.pool import State

    # The books must not notice what the clients' logs are to show: one more pair makes this life.
    way = (State.MADE, State.CHECKED, State.RECORDED, State.HELD, State.DRAWN, State.READY, State.TAKEN)

    def take(_stock: Any, pool: Any, _who: Any) -> Any:
        pool.book.make(1)
        for source, target in itertools.pairwise(way):
            pool.book.move(source, target)
        return pool.ready[0]

    return take


def _settle_unrecorded(_original: Callable[..., Any]) -> Callable[..., Any]:
    """Record before held: all pairs are held at once, and never recorded."""

    def put(_ledger: Any, made: Any) -> None:
        made.settle(made, frozenset())

    return put


def _keep_drawn(original: Callable[..., Any]) -> Callable[..., Any]:
    """Forget before write: a shard keeps the batch that it hands over, and will draw it again."""

    def draw(holding: Any, spec: str, count: int) -> Any:
        sequence, batch = original(holding, spec, count)
        holding._held[spec].extendleft(reversed(batch))
        return sequence, batch

    return draw


def _deliver_twice(original: Callable[..., Any]) -> Callable[..., Any]:
    """A shard answers a draw with the batch of an earlier one, as it was, if so many pairs were asked for.

    Of another size it would be refused for that alone.
    """
    earlier: dict[tuple[str, int], Any] = {}

    def draw(holding: Any, spec: str, count: int) -> Any:
        if again := earlier.pop((spec, count), None):
            return again
        sequence, batch = original(holding, spec, count)
        earlier[spec, len(batch)] = sequence, batch
        return sequence, batch

    return draw


class _NoSequence(dict[int, int]):
    """No batch is ever below what this remembers."""

    def __getitem__(self, _shard: int) -> int:
        return -1


def _forget_sequence(original: Callable[..., Any]) -> Callable[..., Any]:
    """Batch sequence: the daemon does not remember which batches it has had."""

    def init(reports: Any, *args: Any, **kwargs: Any) -> None:
        original(reports, *args, **kwargs)
        if not hasattr(reports, "_sequence"):
            raise PlantError("the sequence of batches is kept elsewhere now")
        reports._sequence = _NoSequence()

    return init


def _take_for_the_same(_original: Callable[..., Any]) -> Callable[..., Any]:
    """Generation check: the daemon takes every machine for the one that it was started on."""

    def stands(_fence: Any) -> bool:
        return True

    return stands


def _claim_nothing(_original: Callable[..., Any]) -> Callable[..., Any]:
    """Claim before draw: every segment is taken for claimed now, and no row says so."""

    def claim(_file: Any, _name: str) -> bool:
        return True

    return claim


_DRAW: Final = "kpcache.worker.holding:Holding.draw"
GUARDS: Final[dict[str, Guard]] = {
    "take_before_build": Guard((("daemon", "kpcache.daemon.stock:Stock._take", _leave_taken),)),
    "record_before_held": Guard((("daemon", "kpcache.daemon.ledger:Ledger.put", _settle_unrecorded),)),
    "forget_before_write": Guard((("shard", _DRAW, _keep_drawn),)),
    "batch_sequence": Guard(
        off=(("daemon", "kpcache.daemon.reports:Reports.__init__", _forget_sequence),),
        fault=(("shard", _DRAW, _deliver_twice),),
    ),
    "generation_check": Guard(
        off=(("daemon", "kpcache.daemon.fence:Fence.stands", _take_for_the_same),), copies=True
    ),
    "claim_before_draw": Guard(
        off=(("daemon", "kpcache.daemon.ledger_file:LedgerFile.claim", _claim_nothing),), puts_back=True
    ),
}


def install(off: str, fault: str, role: str) -> None:
    """Turn a guard off, with its fault planted, or plant a guard's fault alone. Raises ``PlantError``."""
    for name in filter(None, (off, fault)):
        if name not in GUARDS:
            raise PlantError(f"no guard {name!r}: choose from {', '.join(GUARDS)}")
    turned_off = (*GUARDS[off].off, *GUARDS[off].fault) if off else ()
    for where, target, make in (*turned_off, *(GUARDS[fault].fault if fault else ())):
        if where == role:
            plant(target, make)


def require_all() -> None:
    """Raises ``PlantError`` if what any of them is planted in is gone."""
    for guard in GUARDS.values():
        for _, target, _ in (*guard.off, *guard.fault):
            owner_of(target)
