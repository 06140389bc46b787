"""The alarm: two pairs share a prime or a public key, which two sound pairs never do.

It stops all issuing, for the random source cannot be trusted, for any spec; and it outlives a restart, in
the ledger (or, until that can be written, in ``AlarmFile``), until an administrator clears it. Pairs made
before that are burnt and their makers replaced.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from kpcache.daemon.alarm_file import AlarmFile
from kpcache.daemon.dispatcher import Gate
from kpcache.daemon.ledger import Ledger
from kpcache.daemon.ledger_batch import Duplicate, Earlier
from kpcache.daemon.notices import log
from kpcache.errors import KMSInvalidStateException

_CURE: Final = (
    "No pair is given out any more. Find the cause, treat the pairs issued since it began as compromised, "
    "then clear the alarm (kpcache clear-alarm, which shows the evidence)"
)


class Alarm:
    """What was found. ``stop`` is called when it is raised, ``resume`` when it is cleared."""

    def __init__(self, gate: Gate, *, stop: Callable[[], None], resume: Callable[[], None]) -> None:
        self._gate = gate
        self._stop = stop
        self._resume = resume
        self._evidence: list[Duplicate] = []
        self._is_durable = False
        self._unreadable = ""
        self._unreadable_since_s = 0.0

    @property
    def stands(self) -> bool:
        return bool(self._evidence or self._unreadable)

    def recall(self, standing: Sequence[Duplicate], kept: AlarmFile) -> None:
        """Raise it again as an earlier life left it: in the ledger, or beside that."""
        if standing:
            self.find(standing, True)
        if kept.duplicates:
            self.find(kept.duplicates, False)
        if kept.unreadable:
            self._find_unreadable(kept.unreadable, kept.since_s)

    def find(self, duplicates: Sequence[Duplicate], is_durable: bool) -> None:
        """Raise it, or add to it. ``is_durable``: all of it is in the ledger."""
        was_durable, self._is_durable = self._is_durable, is_durable
        new = [each for each in duplicates if each not in self._evidence]
        first = not self.stands
        self._evidence += new
        self._close(first)
        for each in new:
            log.critical(
                "ALARM: a fresh %s pair (SHA-256 of its public key %s, %s) shares a prime or a public key "
                "with an earlier one (SHA-256 begins with %s, %s). Two sound pairs never do: the random "
                "source of this machine is broken. %s",
                each.spec, each.digest.hex(), each.by, each.earlier.fingerprint.hex(), each.earlier.by, _CURE,
            )  # fmt: skip
        if not is_durable:
            if new or was_durable:
                log.critical("the alarm could not be written to the ledger; that is tried again by itself")
        elif new and first:
            log.critical("the alarm is in the ledger: a restart does not clear it")
        elif not was_durable:
            log.critical("the alarm is in the ledger now")

    def _find_unreadable(self, why: str, since_s: float) -> None:
        first = not self.stands
        self._unreadable, self._unreadable_since_s = why, since_s
        self._close(first)
        log.critical(
            "ALARM: an earlier start of the daemon left one, and its evidence cannot be read (%s). %s",
            why,
            _CURE,
        )

    def _close(self, first: bool) -> None:
        self._gate.alarm = True
        if first:
            self._stop()

    def clear(self) -> None:
        """Issue again; what the ledger keeps of it has been marked already."""
        self._evidence, self._unreadable = [], ""
        self._gate.alarm = False
        self._resume()

    def status(self) -> dict[str, Any] | None:
        """For ``kpcache.Status``: None while there is none. ``spec`` is empty if no evidence can be read."""
        if not self.stands:
            return None
        first = self._evidence[0] if self._evidence else None
        return {
            "since_s": first.found_s if first else self._unreadable_since_s,
            "spec": first.spec if first else "",
            "duplicates": len(self._evidence),
            "durable": self._is_durable,
        }

    def describe(self) -> dict[str, Any]:
        """The evidence, which holds nothing secret. Times are Unix seconds, to the minute. ``Unreadable`` is
        why there is some that cannot be told, else empty."""
        return {
            "Standing": self.stands,
            "Durable": self._is_durable and self.stands,
            "Unreadable": self._unreadable,
            "Duplicates": [_described(each) for each in self._evidence],
        }


class Incidents:
    """What an administrator can do about an alarm, and about a ledger that was rolled back."""

    def __init__(self, alarm: Alarm, ledger: Ledger) -> None:
        self._alarm = alarm
        self._ledger = ledger

    def describe_alarm(self) -> dict[str, Any]:
        return self._alarm.describe()

    async def clear_alarm(self) -> tuple[dict[str, Any], list[str]]:
        """The answer, and what of it is for the log. Raises ``KMSInvalidStateException`` where no alarm
        stands, and ``KeyUnavailableException`` where that cannot be made durable."""
        if not self._alarm.stands:
            raise KMSInvalidStateException("No alarm stands: there is nothing to clear.")
        cleared = len(self._alarm.describe()["Duplicates"])
        unreadable = ["evidence that could not be read"] if self._alarm.describe()["Unreadable"] else []
        await self._ledger.clear_alarm()
        self._alarm.clear()
        return {"Cleared": cleared}, [f"{cleared} duplicates", *unreadable]

    async def acknowledge_ledger(self) -> tuple[dict[str, Any], list[str]]:
        """As ``clear_alarm``, of a ledger that was rolled back."""
        told = self._ledger.status()["rolled_back"]
        if not told:
            raise KMSInvalidStateException("The ledger is not rolled back: there is nothing to acknowledge.")
        await self._ledger.acknowledge()
        return {"Acknowledged": told}, [told]


def _described(found: Duplicate) -> dict[str, Any]:
    earlier: Earlier = found.earlier
    return {
        "KeyPairSpec": found.spec,
        "PublicKey": found.public,
        "PublicKeySha256": found.digest.hex(),
        "FoundDate": found.found_s,
        "MadeBy": str(found.by),
        "Life": found.life,
        "Earlier": {
            "PublicKeySha256Prefix": earlier.fingerprint.hex(),
            "RecordedDate": earlier.recorded_s,
            "MadeBy": str(earlier.by),
            "Life": earlier.life,
        },
    }
