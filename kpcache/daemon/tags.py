"""Whether a new pair shares a prime (RSA) or a public key (other specs) with one made before.

Two sound pairs never do, so a tag that is known already means that the random source has failed; the
caller must then stop issuing. The tags live in this process's memory, so the comparison reaches back to
its start at most, and no further than this:

- RSA: at least the last 385,024 pairs, 2 tags each. Two cores make so many RSA_2048 in about 3.5 hours if
  they make nothing else without a pause.
- Other specs together: at least the last 245,760 pairs. Clients that drain these as fast as they are made
  turn them over in less than a minute, which is why they have a book of their own.

A tag takes about 100 bytes, both books together about 100 MB when full.
"""

from collections import deque
from collections.abc import Sequence

from kpcache.core.specs import SPECS

# Forgetting this many at once, or moving them to a larger table, takes a millisecond or two.
GENERATION_TAGS = 16_384
RSA_GENERATIONS = 48
OTHER_GENERATIONS = 16


class TagBook:
    """The newest tags, each 16 bytes of keyed BLAKE2b.

    Kept in generations: when the newest is full, the oldest is forgotten. To take single tags out costs
    more with each (a dict steps over the holes that they leave), and to drop all of one large set stalls.
    """

    def __init__(self, generations: int, generation_tags: int = GENERATION_TAGS) -> None:
        self._generations: deque[set[bytes]] = deque([set()], maxlen=generations)  # newest first
        self._generation_tags = generation_tags
        self.forgotten = 0

    def __len__(self) -> int:
        return sum(map(len, self._generations))

    def record(self, tags: Sequence[bytes]) -> bool:
        """Note one pair's tags. False if any of them was known, or two of them are equal: a duplicate."""
        generations = self._generations
        known = any(not generation.isdisjoint(tags) for generation in generations)
        if len(generations[0]) + len(tags) > self._generation_tags:
            if len(generations) == generations.maxlen:
                self.forgotten += len(generations[-1])
            generations.appendleft(set())
        generations[0].update(tags)
        return not known and len(set(tags)) == len(tags)


class TagBooks:
    """The book of the RSA specs, whose pairs are few and dear, and that of the rest."""

    def __init__(self) -> None:
        self._books = {"rsa": TagBook(RSA_GENERATIONS), "other": TagBook(OTHER_GENERATIONS)}

    def record(self, spec: str, tags: Sequence[bytes]) -> bool:
        """Note the tags of one pair of this spec; False if it is a duplicate. See ``TagBook.record``."""
        return self._books["rsa" if SPECS[spec].family == "rsa" else "other"].record(tags)

    def status(self) -> dict[str, dict[str, int]]:
        """By book: how many tags a new pair is compared with, and how many have been forgotten."""
        return {name: {"known": len(book), "forgotten": book.forgotten} for name, book in self._books.items()}
