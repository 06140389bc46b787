"""Makes the machine fit for a snapshot: no pair is left that could be given out, and nothing that makes one.

A snapshot that is started more than once goes on in each copy with all that was in memory. Where copies can
be noticed (``worker/generation``) pairs are burnt in each; everywhere else this is what keeps a pair from
being given out by two of them. It wipes nothing: bytes of pairs may be left in memory that is free.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from kpcache.daemon.dispatcher import Gate
from kpcache.daemon.endings import WorkersRemainError
from kpcache.daemon.fence import Fence
from kpcache.daemon.floor import Floor
from kpcache.daemon.ledger_store import LedgerUnavailableError
from kpcache.daemon.stock import Stock
from kpcache.daemon.supervisor import Supervisor
from kpcache.errors import KMSInvalidStateException, KpcacheError
from kpcache.keyring import Keyring

# Answers with pairs in them that their clients have not read by then are burnt, and the connections cut.
UNREAD_TIMEOUT_S = 2.0
_LOOK_INTERVAL_S = 0.02


class Quiescence:
    """What administrators ask for before and after a snapshot. Both may be asked for again."""

    def __init__(
        self,
        gate: Gate,
        stock: Stock,
        floor: Floor,
        supervisor: Supervisor,
        keyring: Keyring,
        fence: Fence,
        cut_unread: Callable[[], None],
        drop_reserve: Callable[[], None],
        raise_floor: Callable[[], Awaitable[None]],
    ) -> None:
        """``cut_unread`` cuts the connections of clients who do not read answers with pairs in them;
        ``drop_reserve`` deletes what is left of the reserve, and ``raise_floor`` has the ledger know that
        nothing sealed before may come back, also what is not found here and now."""
        self._gate = gate
        self._stock = stock
        self._floor = floor
        self._supervisor = supervisor
        self._keyring = keyring
        self._fence = fence
        self._cut_unread = cut_unread
        self._drop_reserve = drop_reserve
        self._raise_floor = raise_floor

    async def quiesce(self) -> tuple[dict[str, Any], list[str]]:
        """Refuse all requests for pairs, burn every pair, end all shards and makers, until ``resume``.

        The answer, and what of it is for the log. Raises ``KMSInvalidStateException`` if something remains;
        it is quiesced then all the same, and can be asked for again.
        """
        burnt = self._burnt()
        self._gate.quiesced = True
        self._floor.stop("quiesced")
        self._stock.dismiss_queues(self._gate.refusal)
        self._stock.burn_ready("quiesced")
        try:
            await self._supervisor.end_workers("quiesced")
        except WorkersRemainError:
            raise _remains("a maker that was killed is still there: this machine is too busy") from None
        self._drop_reserve()
        try:
            await self._raise_floor()
        except LedgerUnavailableError as error:
            raise _remains(f"the ledger cannot note that sealed pairs are burnt ({error})") from error
        if not await self._all_read(UNREAD_TIMEOUT_S):
            self._cut_unread()
            if not await self._all_read(UNREAD_TIMEOUT_S):
                raise _remains("answers with pairs in them are still under way")
        count = self._burnt() - burnt
        return {"Burnt": count}, [f"{count} pairs burnt"]

    async def resume(self) -> tuple[dict[str, Any], list[str]]:
        """Make pairs and give them out again. Raises ``KMSInvalidStateException`` if not quiesced."""
        if not self._gate.quiesced:
            raise KMSInvalidStateException("The daemon is not quiesced: there is nothing to resume.")
        self._fence.stands()  # in a copy, the first thing to know
        self._keyring.new_epoch()
        self._gate.quiesced = False
        self._supervisor.start_workers()
        self._floor.resume("quiesced")
        return {"Generation": self._fence.number, "CloneGuard": self._fence.source.mode}, []

    async def _all_read(self, timeout_s: float) -> bool:
        for _ in range(round(timeout_s / _LOOK_INTERVAL_S)):
            if not self._stock.taken:
                return True
            await trio.sleep(_LOOK_INTERVAL_S)
        return not self._stock.taken

    def _burnt(self) -> int:
        return sum(pool.book.discarded["quiesced"] for pool in self._stock.pools.values())


def _remains(what: str) -> KpcacheError:
    return KMSInvalidStateException(f"Take no snapshot yet: {what}. Ask again.")
