"""What is done at once, and in which order, when pairs that are there must not be given out: nothing here
waits."""

from collections.abc import Awaitable, Callable

from kpcache.daemon.dispatcher import Gate
from kpcache.daemon.fence import Fence
from kpcache.daemon.floor import Floor
from kpcache.daemon.ledger_store import LedgerUnavailableError
from kpcache.daemon.notices import log
from kpcache.daemon.reserve import Reserve
from kpcache.daemon.stock import Stock
from kpcache.daemon.supervisor import Supervisor
from kpcache.keyring import Keyring


class Emergencies:
    """The alarm, a copied machine, a ledger that cannot be written."""

    def __init__(
        self,
        gate: Gate,
        stock: Stock,
        floor: Floor,
        supervisor: Supervisor,
        reserve: Reserve,
        keyring: Keyring,
        fence: Fence,
        forget_sealed: Callable[[], None],
    ) -> None:
        """``forget_sealed`` has the method of that name run, soon."""
        self._gate = gate
        self._stock = stock
        self._floor = floor
        self._supervisor = supervisor
        self._reserve = reserve
        self._keyring = keyring
        self._fence = fence
        self._forget_sealed = forget_sealed

    def stop_issuing(self) -> None:
        """Fail closed, at the alarm: no pair made so far is ever issued, and their makers make no other."""
        self._floor.stop("alarm")
        self._stock.dismiss_queues(self._gate.refusal)
        self._stock.burn_ready("not_issuing")
        self._supervisor.replace_shards("the alarm was raised", "not_issuing")
        self._reserve.drop_all("alarm")

    def issue_again(self) -> None:
        """The alarm was cleared; what was on its way to the ready sets when it was raised is burnt too."""
        self._stock.burn_ready("not_issuing")
        self._floor.resume("alarm")

    def burn_copied(self) -> None:
        """This machine was loaded from a snapshot: what it held then, another copy may hold as well."""
        log.warning(
            "this machine was copied, or restored from a snapshot: all pairs made before are burnt, and "
            "their makers replaced (generation %d now, by %s)", self._fence.number, self._fence.source.mode,
        )  # fmt: skip
        self._stock.burn_ready("copied")
        self._supervisor.replace_shards("the machine was copied", "copied")
        self._keyring.new_epoch()
        self._reserve.drop_all("generation")
        self._forget_sealed()

    async def forget_sealed(self, raise_floor: Callable[[], Awaitable[None]]) -> None:
        """Sealed pairs of before, wherever they lie, do not come back at a later start, although by then the
        generation may be told by another clock, or not at all."""
        try:
            await raise_floor()
        except LedgerUnavailableError as error:
            log.error(
                "it cannot be written into the ledger that sealed pairs of before the copy are burnt: %s. "
                "Remove what lies in daemon.runtime_dir", error,
            )  # fmt: skip

    def ledger_is(self, available: bool) -> None:
        """Where nothing is to be given out while pairs cannot be recorded."""
        self._gate.ledger_down = not available
        if not available:
            self._stock.dismiss_queues(self._gate.refusal)
