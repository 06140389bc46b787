"""Whether a new pair shares a prime (RSA) or a public key (other specs) with any pair made before.

Two sound pairs never do, so a tag that is known already means that the random source has failed; the
caller must then stop issuing. The memory of this start holds the tags; the oldest are forgotten beyond
``MAX_TAGS``, which ``TagBook.forgotten`` counts.
"""

from collections.abc import Sequence

# About 100 bytes each: 100 MB at most, and a day and a half of RSA_2048 on two cores.
MAX_TAGS = 1_000_000
TAG_BYTES = 16


class TagBook:
    """All tags seen, each 16 bytes of keyed BLAKE2b."""

    def __init__(self, max_tags: int = MAX_TAGS) -> None:
        self._tags: dict[bytes, None] = {}
        self._max_tags = max_tags
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._tags)

    def record(self, tags: Sequence[bytes]) -> bool:
        """Note one pair's tags. False if any of them was known, or two of them are equal: a duplicate."""
        known = self._tags
        fresh = len(set(tags)) == len(tags) and not any(tag in known for tag in tags)
        known.update(dict.fromkeys(tags))
        while len(known) > self._max_tags:
            del known[next(iter(known))]
            self.forgotten += 1
        return fresh
