"""A pool among several users: none of them alone can empty it while another one is about.

Each user owes the pool the pairs that it took and that have not been made anew. No user's debt may become
so large that less than the share kept back for others is left, as long as another user has asked for this
spec in the last ``ABOUT_S``; a lone application gets the whole pool. New pairs pay off debts evenly, one to
each debtor as long as it owes any: so under steady load a user who asks for more than its part gets what
the others leave, and they find pairs (max-min fairness: Bertsekas and Gallager, Data Networks, sec. 6.5.2).

Users are counted by uid: cgroups and processes can be made at will.
"""

from typing import Final

ABOUT_S: Final = 3600.0
_NEVER: Final = float("-inf")
_NOTHING: Final = 1e-9  # what sums of fractions leave


class Shares:
    """The debts of one pool's users. ``now`` is in monotonic seconds."""

    __slots__ = ("_before", "_debts", "_free", "_last", "kept_percent")

    def __init__(self, kept_percent: float) -> None:
        """``kept_percent`` of the target are what no single user may take; 0 switches all of this off."""
        self.kept_percent = kept_percent
        self._free = 1 - kept_percent / 100
        self._debts: dict[int, float] = {}
        # Who asked last and when, and the last one before that who was somebody else: enough to tell for
        # any user when another one asked, however many there are.
        self._last = self._before = (-1, _NEVER)

    def asked(self, uid: int, now: float) -> None:
        """A user is about."""
        if uid != self._last[0]:
            self._before = self._last
        self._last = uid, now

    def may_take(self, uid: int, target: int, now: float) -> bool:
        """Whether this user may have one more pair of a pool of this size."""
        # Each hit asks: this is ``room`` without the call.
        return self._debts.get(uid, 0.0) + 1 <= target * self._free or self.is_alone(uid, now)

    def room(self, uid: int, target: int) -> float:
        """How many more pairs this user may owe when others are about."""
        return max(target * self._free - self._debts.get(uid, 0.0), 0.0)

    def is_alone(self, uid: int, now: float) -> bool:
        """Whether nothing is kept back from this user, since no other has been about."""
        _, at = self._before if self._last[0] == uid else self._last
        return not self.kept_percent or now - at >= ABOUT_S

    def owes(self, uid: int) -> float:
        """Pairs that this user took and that have not been made anew."""
        return self._debts.get(uid, 0.0)

    def took(self, uid: int) -> None:
        """A user was given a pair."""
        self._debts[uid] = self._debts.get(uid, 0.0) + 1

    def repaid(self, pairs: float) -> None:
        """So many new pairs have come to the pool."""
        while pairs > _NOTHING and self._debts:
            each = min(pairs / len(self._debts), min(self._debts.values()))
            pairs -= each * len(self._debts)
            left = {uid: debt - each for uid, debt in self._debts.items()}
            self._debts = {uid: debt for uid, debt in left.items() if debt > _NOTHING}

    def settle(self, missing: int) -> None:
        """No more pairs than this are missing: nobody owes any more for a pool that is full."""
        total = sum(self._debts.values())
        if total > missing:
            self.repaid(total - missing)
