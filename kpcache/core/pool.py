"""The life of a pair as one table of legal moves, and the books that are kept by it.

    ordered → made → checked → recorded → held → drawn → ready → taken → issued
                 any of them but issued → discarded (reason)
    sealed → held                        (a pair that waited out a restart in the reserve)

A pair moves forward only. No move leads back into ``held`` or ``ready``: what has been taken out is
issued or burnt, whatever goes wrong, and a caller who asks again gets another pair. ``taken`` is a
pair out of the ready set and not yet with the client: it is taken before the answer is built.
"""

from collections import Counter
from enum import IntEnum


class State(IntEnum):
    """Where a pair is. Before ``made`` there is no pair, only an order for one.

    Integers, because each hit looks states up in tables: an enum of strings is hashed by Python code.
    """

    ORDERED = 0
    MADE = 1
    CHECKED = 2
    RECORDED = 3
    HELD = 4
    DRAWN = 5
    READY = 6
    TAKEN = 7
    ISSUED = 8
    SEALED = 9
    DISCARDED = 10


MOVES: dict[State, frozenset[State]] = {
    State.ORDERED: frozenset({State.MADE}),
    State.MADE: frozenset({State.CHECKED, State.DISCARDED}),
    State.CHECKED: frozenset({State.RECORDED, State.DISCARDED}),
    State.RECORDED: frozenset({State.HELD, State.DISCARDED}),
    State.HELD: frozenset({State.DRAWN, State.DISCARDED}),
    State.DRAWN: frozenset({State.READY, State.DISCARDED}),
    State.READY: frozenset({State.TAKEN, State.DISCARDED}),
    State.TAKEN: frozenset({State.ISSUED, State.DISCARDED}),
    State.SEALED: frozenset({State.HELD, State.DISCARDED}),
    State.ISSUED: frozenset(),
    State.DISCARDED: frozenset(),
}

# Between two places, in somebody's hand: the states that the metric pairs_in_hand adds up.
IN_HAND = (State.MADE, State.CHECKED, State.RECORDED, State.DRAWN, State.TAKEN)

# Why pairs are burnt: a closed set, since each is a metric's label.
REASONS = frozenset(
    {
        "copied",  # the machine was copied while it was there: another copy may give it out
        "client_gone",  # the client left, or its connection broke, before its answer was written
        "damaged",  # the hand-over digest did not match: bytes changed between maker and daemon
        "duplicate",  # a tag was known: the random source must be presumed broken
        "not_issuing",  # the alarm was raised while a client's answer was being made
        "quiesced",  # burnt for a snapshot of the machine
        "request_failed",  # the answer could not be built
        "shutdown",  # left over when the daemon stopped
        "too_old",  # it was not asked for within its pool's max_age_s
        "unsound",  # the maker's checks refused it
        "worker_lost",  # it was with a worker process that died
    }
)


class IllegalMoveError(Exception):
    """A defect: a pair was about to make a move that the table does not have."""


class PoolBook:
    """The counts of one pool, kept by moves so that they always add up.

    The identity that an auditor checks: generated + restored = issued + discarded + held + ready + in hand.
    """

    __slots__ = ("_counts", "discarded", "dry", "dry_while_held", "generated", "kept_back", "restored")

    def __init__(self) -> None:
        self._counts = [0] * len(State)
        self.generated = 0
        self.restored = 0
        # Requests that found no pair ready for them, each in one of the three: none was at hand that was not
        # promised to another; shards held one, which had to be drawn; those at hand were kept for others.
        self.dry = 0
        self.dry_while_held = 0
        self.kept_back = 0
        self.discarded: Counter[str] = Counter()

    def make(self, count: int) -> None:
        """``count`` pairs have been made; they are unchecked."""
        self.generated += count
        self._counts[State.MADE] += count

    def restore(self, count: int) -> None:
        """``count`` pairs are back from the reserve, recorded as they were, and are held again."""
        self.restored += count
        self._counts[State.SEALED] += count
        self.move(State.SEALED, State.HELD, count)

    def move(self, source: State, target: State, count: int = 1) -> None:
        """``count`` pairs go from one state to the next. Raises ``IllegalMoveError``."""
        counts = self._counts
        if target not in MOVES[source] or target is State.DISCARDED or counts[source] < count:
            raise IllegalMoveError(f"{count} pairs from {source.name.lower()} to {target.name.lower()}")
        counts[source] -= count
        counts[target] += count

    def discard(self, source: State, reason: str, count: int = 1) -> None:
        """``count`` pairs are burnt where they are. Raises ``IllegalMoveError``."""
        if State.DISCARDED not in MOVES[source] or reason not in REASONS or self._counts[source] < count:
            raise IllegalMoveError(f"{count} pairs from {source.name.lower()} discarded as {reason}")
        self._counts[source] -= count
        self.discarded[reason] += count

    @property
    def issued(self) -> int:
        return self._counts[State.ISSUED]

    @property
    def held(self) -> int:
        return self._counts[State.HELD]

    @property
    def ready(self) -> int:
        return self._counts[State.READY]

    @property
    def taken(self) -> int:
        return self._counts[State.TAKEN]

    @property
    def in_hand(self) -> int:
        return sum(self._counts[state] for state in IN_HAND)

    @property
    def available(self) -> int:
        """Pairs that a client can still get: held or ready, or checked and on the way there."""
        _, _, checked, recorded, held, drawn, ready, *_ = self._counts
        return checked + recorded + held + drawn + ready
