"""``kpcache`` with "take before build" turned off, to show that the tests would notice: never for use."""

import itertools
import sys

from kpcache.cli.main import main
from kpcache.core.fair_queue import Identity
from kpcache.core.pair import Pair
from kpcache.core.pool import State
from kpcache.daemon import pooling
from kpcache.daemon.pools import Pool
from kpcache.daemon.stock import Stock

# The books must not notice what is to be noticed by the clients' logs: one more pair makes this life.
_WAY = (State.MADE, State.CHECKED, State.RECORDED, State.HELD, State.DRAWN, State.READY, State.TAKEN)


class LeakyStock(Stock):
    def _take(self, pool: Pool, _who: Identity) -> Pair:
        """As ``Stock._take``, but the pair stays where the next request finds it."""
        pool.book.make(1)
        for source, target in itertools.pairwise(_WAY):
            pool.book.move(source, target)
        return pool.ready[0]


if __name__ == "__main__":
    vars(pooling)["Stock"] = LeakyStock
    sys.exit(main())
