"""What the checker judges, and what it finds: answers, ledger rows, lives, copies; violations, a proof."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

ISSUED: Final = "issued"
OPENED: Final = "opened"  # issued, and the blob was seen to open to the same private key
_LIFE_SHIFT: Final = 32
# Not in the ledger: they failed their checks, or their tags were there already.
_NEVER_RECORDED: Final = ("unsound", "duplicate")


class Answer(NamedTuple):
    """A line of a client's log: its ``number``-th request. Digests are SHA-256 of the DER forms, empty for a
    refusal. ``time_s`` is the machine's monotonic clock, when it came."""

    client: str
    number: int
    time_s: float
    outcome: str
    spec: str
    private: bytes = b""
    public: bytes = b""

    @property
    def is_issued(self) -> bool:
        return self.outcome in (ISSUED, OPENED)


class LedgerRow(NamedTuple):
    """A tag in the ledger. ``batch``: the daemon's life on this ledger << 32, and a serial number."""

    tag: bytes
    fingerprint: bytes
    batch: int

    @property
    def life(self) -> int:
        return self.batch >> _LIFE_SHIFT


class Violation(NamedTuple):
    rule: str
    evidence: str


class Books(NamedTuple):
    """The sums over all pools of one status. ``unrecorded`` are those discarded that no ledger has."""

    generated: int = 0
    restored: int = 0
    issued: int = 0
    discarded: int = 0
    held: int = 0
    ready: int = 0
    in_hand: int = 0
    unrecorded: int = 0


@dataclass(frozen=True, slots=True)
class Life:
    """A life of the daemon. ``number``: its life on the ledger, 0 if it never had it open.

    It began at ``started_s``. ``books``: its last; None if it gave none. ``slack``: so many pairs may be in
    the ledger that nobody got and the books do not account for. With 0 the end was in order, and what all
    pools held is known.
    """

    number: int
    started_s: float
    books: Books | None
    slack: int = 0


class Copy(NamedTuple):
    """A copy of the machine was made, or pretended: after ``batch`` was recorded, before ``time_s``."""

    time_s: float
    batch: int


@dataclass(slots=True)
class Proof:
    """``unexplained``: pairs by life, in the order of the lives."""

    violations: list[Violation] = field(default_factory=list)
    issued: int = 0
    opened: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    recorded: int = 0
    unexplained: list[int] = field(default_factory=list)

    @property
    def rules(self) -> set[str]:
        return {violation.rule for violation in self.violations}


def books_of(status: Mapping[str, Any]) -> Books:
    """The sums of a status."""
    pools = status["pools"].values()
    sums = {name: sum(pool[name] for pool in pools) for name in Books._fields[:-1]}
    never = sum(by.get(reason, 0) for by in status["discarded"].values() for reason in _NEVER_RECORDED)
    return Books(**sums, unrecorded=never)
