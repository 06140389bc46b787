"""What the ledger asks of whatever keeps it: a few blocking calls, for one thread at a time.

``LedgerFile`` is the one in use. ``tests/daemon/test_ledger_conformance.py`` is what any must pass.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from kpcache.daemon.ledger_batch import Batch, Duplicate

# Of one batch. Evidence enough; while the alarm stands nothing is made that could add to it.
MAX_EVIDENCE: Final = 16


class LedgerUnavailableError(Exception):
    """Nothing can be recorded now. The text says why, with the file; an operator must look if it lasts.

    ``duplicates``: found before that, and the alarm could not be made durable.
    """

    def __init__(self, message: str, duplicates: list[Duplicate] | None = None) -> None:
        super().__init__(message)
        self.duplicates = duplicates or []


class Verdict(NamedTuple):
    """Which pairs of a batch, by the indexes of ``Made`` and pair, are duplicates, and of what."""

    refused: set[tuple[int, int]]
    duplicates: list[Duplicate]


class Store(Protocol):
    """Each change is durable when its call returns. A call that raises ``LedgerUnavailableError`` may have
    made it or not, and leaves the store closed: ``connect`` finds out which."""

    @property
    def id(self) -> str:
        """Of this ledger and no other; empty until it has been open."""

    @property
    def rows(self) -> int:
        """Tags, as far as acknowledged."""

    @property
    def size_bytes(self) -> int:
        """What it takes, as of the last minute."""

    @property
    def life(self) -> int:
        """Which of the daemon's starts on this ledger this is; 0 until it has been open."""

    @property
    def rolled_back(self) -> str:
        """What is missing of what was recorded, until it is acknowledged; empty if nothing is."""

    @property
    def floor(self) -> int:
        """The first life whose sealed pairs may come back."""

    @property
    def standing(self) -> Sequence[Duplicate]:
        """The evidence of the alarm that is durable and was not cleared."""

    def connect(self) -> None:
        """Open it, made first where none is, and begin a life, once. Does nothing if it is open.

        Raises ``ConfigError`` with the cure for what is not to be used, and ``LedgerUnavailableError``.
        """

    def record(self, batch: Batch) -> Verdict:
        """Check and record all pairs of the batch, and the alarm if any is a duplicate. A batch that failed
        is tried again as it is, before any other: what an attempt of its own has left is no duplicate.

        Raises ``LedgerUnavailableError``, also if the store is closed.
        """

    def raise_alarm(self, duplicates: Sequence[Duplicate]) -> None:
        """Evidence that could not be recorded when it was found; what stands already is not added twice.

        Opens the store first, as do all below. Raises as ``connect``.
        """

    def clear_alarm(self) -> None:
        """No alarm stands from now on; the evidence stays, marked, and the floor is raised."""

    def acknowledge(self) -> None:
        """What is missing is known to whoever must know."""

    def raise_floor(self) -> None:
        """No sealed pair of an earlier life comes back from now on, nor one of this life that was sealed
        before."""

    def claim(self, name: str) -> bool:
        """This name is used from now on, and never again; whether it had not been before."""

    def unknown(self, tags: Sequence[bytes]) -> set[int]:
        """The indexes of those that are not recorded."""

    def close(self) -> None:
        """May be called again."""
