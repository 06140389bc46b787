"""``kpcache`` with "take before build" turned off, to show that the tests would notice: never for use."""

import sys

from kpcache.cli.main import main
from kpcache.core.pair import Pair
from kpcache.core.pool import State
from kpcache.daemon.stock import Pool, Stock


def _leave_in_the_ready_set(self: Stock, pool: Pool) -> Pair:
    """As ``Stock._take``, but the pair stays where the next request finds it; the books are kept quiet."""
    book = pool.book
    book.make(1)
    for source, target in ((State.MADE, State.CHECKED), (State.CHECKED, State.RECORDED), (State.RECORDED, State.HELD)):
        book.move(source, target)
    for source, target in ((State.HELD, State.DRAWN), (State.DRAWN, State.READY), (State.READY, State.TAKEN)):
        book.move(source, target)
    return pool.ready[0]


if __name__ == "__main__":
    Stock._take = _leave_in_the_ready_set  # type: ignore[method-assign]
    sys.exit(main())
