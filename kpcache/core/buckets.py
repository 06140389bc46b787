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

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        # By place of the rule, spec and user: the tokens at a time. One that is not here is full.
        self._buckets: dict[tuple[int, str], dict[int, tuple[float, float]]] = {}

    def take(self, uid: int, spec: str, now: float) -> float:
        """Take a token from each bucket that counts, if all have one: 0. Else none is taken, and it is
        the time in seconds until they do."""
        found: list[tuple[dict[int, tuple[float, float]], float]] = []
        wait_s = 0.0
        for place, rule in enumerate(self._rules):
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

    def give_back(self, uid: int, spec: str) -> None:
        """The request got no pair after all."""
        for place, rule in enumerate(self._rules):
            users = self._buckets.get((place, spec), {})
            if uid in users:
                tokens, at = users[uid]
                users[uid] = (min(tokens + 1, float(rule.burst)), at)
