"""A pool among several users: none of them alone takes the last of it while another one is about.

A share of the target is kept back: once no more than that is left, a pair goes only to users who owe the
pool not much more than the average, and to a user who is alone, since no other has asked for this spec in
the last ``ABOUT_S``: a lone application gets the whole pool.

Each user owes the pool the pairs that it took and that have not been made anew. New pairs pay off debts
evenly, one to each debtor as long as it owes any: so under steady load a user who asks for more than its
part gets what the others leave, and they find pairs (max-min fairness: Bertsekas and Gallager, Data
Networks, sec. 6.5.2).

Users are counted by uid: cgroups and processes can be made at will.
"""

from typing import Final

ABOUT_S: Final = 3600.0
KEPT_PERCENT: Final = 20.0  # of the target, unless the configuration says otherwise
_NEVER: Final = float("-inf")
_NOTHING: Final = 1e-9  # what sums of fractions leave
# Users who ask equally often, at random, differ by chance: by a seventh when each owes fifty pairs, by more
# when each owes few.
_ALLOWANCE: Final = 1.25
_FREE: Final = 2.0
_PASSES: Final = 16  # over the debts, when some are paid off


class Shares:
    """The debts of one pool's users. ``now`` is in monotonic seconds."""

    __slots__ = ("_before", "_debts", "_last", "_total", "kept_percent")

    def __init__(self, kept_percent: float) -> None:
        """``kept_percent`` of the target are kept back; 0 switches all of this off."""
        self.kept_percent = kept_percent
        self._debts: dict[int, float] = {}
        self._total = 0.0
        # Who asked last and when, and the last one before that who was somebody else: enough to tell for
        # any user when another one asked, however many there are.
        self._last = self._before = (-1, _NEVER)

    def asked(self, uid: int, now: float) -> None:
        """A user is about."""
        if uid != self._last[0]:
            self._before = self._last
        self._last = uid, now

    def kept(self, target: int) -> int:
        """Pairs of a pool of this size that are kept back."""
        return int(target * self.kept_percent / 100)

    def may_take_the_last(self, uid: int, now: float) -> bool:
        """Whether this user may have a pair although no more than the kept share is left."""
        debt = self._debts.get(uid, 0.0)
        # Whoever is about and owes nothing counts in the average too: there are two users at least.
        users = max(len(self._debts) + (uid not in self._debts), 2)
        if debt <= self._total / users * _ALLOWANCE + _FREE or not self.kept_percent:
            return True
        _, at = self._before if self._last[0] == uid else self._last
        return now - at >= ABOUT_S

    def owes(self, uid: int) -> float:
        """Pairs that this user took and that have not been made anew."""
        return self._debts.get(uid, 0.0)

    def took(self, uid: int) -> None:
        """A user was given a pair."""
        self._debts[uid] = self._debts.get(uid, 0.0) + 1
        self._total += 1

    def repaid(self, pairs: float) -> None:
        """So many new pairs have come to the pool."""
        for _ in range(_PASSES):
            if pairs <= _NOTHING or not self._debts:
                break
            each = min(pairs / len(self._debts), min(self._debts.values()))
            pairs -= each * len(self._debts)
            left = {uid: debt - each for uid, debt in self._debts.items()}
            self._debts = {uid: debt for uid, debt in left.items() if debt > _NOTHING}
        self._total = sum(self._debts.values())
        if pairs > _NOTHING and self._debts:
            # Each pass pays off the smallest debts; of very many different ones the rest goes in proportion.
            part = max(1 - pairs / self._total, 0.0)
            self._debts = {uid: debt * part for uid, debt in self._debts.items() if part > _NOTHING}
            self._total = sum(self._debts.values())

    def settle(self, missing: int) -> None:
        """No more pairs than this are missing: nobody owes any more for a pool that is full."""
        if self._total > missing:
            self.repaid(self._total - missing)
