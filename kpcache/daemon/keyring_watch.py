"""Looks after the keyring's file while the daemon runs. All keys are in memory, so it is not missed before
the next start: whoever is told in time can still export them.
"""

import math
from collections.abc import Callable
from typing import Final

import trio

from kpcache.daemon.notices import log, log_defect
from kpcache.keyring.vault import Sight, Vault

# While nobody changes anything the file is looked at this often.
LOOK_INTERVAL_S: Final = 60.0
# A look takes a millisecond. One that takes so long is told and given up, for the disk may hang for good.
LOOK_TIMEOUT_S: Final = 10.0
_LOST: Final = (
    "the keys are in memory only: export them before this daemon stops (kpcache keyring export), else no "
    "blob made with them may ever be opened again: {}"
)
_FAULT: Final = "no change of the keyring can be made: {}"


class KeyringWatch:
    """For the task that makes the changes: a look and a change do not overlap, but for a look given up."""

    def __init__(self, vault: Vault, adopt: Callable[[], None]) -> None:
        """``adopt`` brings into force what the vault has."""
        self._vault = vault
        self._adopt = adopt
        self._is_lost = False
        self._defect: type[Exception] | None = None
        # Looks that were given up still wait for the disk, each in a thread: one at a time.
        self._looking = trio.CapacityLimiter(1)
        self.fault = ""  # what is wrong with the file, with the cure
        self.next_s = math.inf  # when to look again, by trio's clock

    def put_off(self) -> None:
        """The next look is due one interval from now."""
        self.next_s = trio.current_time() + LOOK_INTERVAL_S

    async def look(self) -> None:
        """Look, mend what can be mended, and tell what is new about it."""
        try:
            sight = await self._sight()
            if sight.is_to_mend:
                # To its end, other than a look: it writes, and what it leaves must be known.
                why_not = await trio.to_thread.run_sync(self._vault.mend)
                self._adopt()
                sight = await self._sight()
                if why_not:
                    more = f"; what should keep the next start from beginning anew cannot be made: {why_not}"
                    sight = sight._replace(fault=f"{sight.fault}{more}" if sight.fault else why_not)
            self._tell(sight)
            self._defect = None
        except Exception as error:  # no thread to be had, say: nothing to end a daemon for that serves
            if self._defect is not type(error):
                log_defect("looking at the keyring's file", error)
            self._defect = type(error)
        finally:
            self.put_off()

    def tell_at_end(self) -> None:
        """Say once more what still stands: the last chance to look into it."""
        if self.fault:
            log.critical("this daemon stops, and what it has told still stands: %s", self.fault)

    async def _sight(self) -> Sight:
        with trio.move_on_after(LOOK_TIMEOUT_S):
            return await trio.to_thread.run_sync(
                self._vault.look, abandon_on_cancel=True, limiter=self._looking
            )
        return Sight(f"its file could not be read within {LOOK_TIMEOUT_S:g} s: the disk may hang")

    def _tell(self, sight: Sight) -> None:
        fault = (_LOST if sight.is_lost else _FAULT).format(sight.fault) if sight.fault else ""
        if fault and (not self.fault or sight.is_lost > self._is_lost):
            log.critical("%s", fault)
        elif self.fault and not fault:
            log.warning("the keyring's file is as it should be again")
        self.fault, self._is_lost = fault, sight.is_lost
