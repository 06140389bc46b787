"""Limits on how fast one user may take pairs: token buckets, by the ``[[limits]]`` of the configuration.

A rule counts each user apart, also where it is for all of them. A request must find a token in the bucket
of every rule that is for its user and spec.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# Buckets kept for one rule and spec: beyond, the fullest of the oldest few goes, which refuses nobody.
_MAX_BUCKETS: Final = 4096
_LOOKS: Final = 16


@dataclass(frozen=True, slots=True)
class Rule:
    """``rate_per_s`` pairs a second for good, and ``burst`` of them at once. ``uid`` None: for each user;
    ``spec`` None: for each spec, each with a bucket of its own."""

    uid: int | None
    spec: str | None
    rate_per_s: float
    burst: int


class Buckets:
    """The buckets of all rules. ``now`` is in monotonic seconds."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.rules = tuple(rules)
        self.era = 0  # goes up with each change of the rules
        # By place of the rule: the first era that has it.
        self._since = [0] * len(self.rules)
        # By place of the rule, spec and user: the tokens at a time. One that is not here is full.
        self._buckets: dict[tuple[int, str], dict[int, tuple[float, float]]] = {}

    def change(self, rules: Sequence[Rule]) -> None:
        """Go by these rules from now on. A rule that was there already keeps its buckets as they are; those
        of any other are full."""
        self.era += 1
        places = dict[Rule, list[int]]()
        for place, rule in enumerate(self.rules):
            places.setdefault(rule, []).append(place)
        before = [places[rule].pop(0) if places.get(rule) else None for rule in rules]
        moved = {old: new for new, old in enumerate(before) if old is not None}
        self._since = [self.era if old is None else self._since[old] for old in before]
        self._buckets = {
            (moved[place], spec): users for (place, spec), users in self._buckets.items() if place in moved
        }
        self.rules = tuple(rules)

    def take(self, uid: int, spec: str, now: float) -> float:
        """Take a token from each bucket that counts, if all have one: 0. Else none is taken, and it is
        the time in seconds until they do."""
        found: list[tuple[dict[int, tuple[float, float]], float]] = []
        wait_s = 0.0
        for place, rule in enumerate(self.rules):
            if rule.uid in (None, uid) and rule.spec in (None, spec):
                users = self._buckets.setdefault((place, spec), {})
                tokens, at = users.get(uid, (float(rule.burst), now))
                tokens = min(tokens + (now - at) * rule.rate_per_s, float(rule.burst))
                found.append((users, tokens))
                wait_s = max(wait_s, (1 - tokens) / rule.rate_per_s)
        if wait_s <= 0:
            for users, tokens in found:
                if uid not in users and len(users) >= _MAX_BUCKETS:
                    del users[max(itertools.islice(users, _LOOKS), key=lambda one: users[one])]
                users[uid] = (tokens - 1, now)
        return wait_s

    def give_back(self, uid: int, spec: str, era: int) -> None:
        """The request that took tokens in ``era`` got no pair after all. What is newer got none from it."""
        for place, rule in enumerate(self.rules):
            users = self._buckets.get((place, spec), {})
            if uid in users and self._since[place] <= era:
                tokens, at = users[uid]
                users[uid] = (min(tokens + 1, float(rule.burst)), at)
