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
    """All tags seen, each 16 bytes of keyed BLAKE2b.

    Kept in two halves: when the newer is full, it becomes the older, and the one before is forgotten. To
    take the oldest out one by one costs more with each (a dict steps over the holes that they leave).
    """

    def __init__(self, max_tags: int = MAX_TAGS) -> None:
        self._newer: set[bytes] = set()
        self._older: set[bytes] = set()
        self._half = max_tags // 2
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def record(self, tags: Sequence[bytes]) -> bool:
        """Note one pair's tags. False if any of them was known, or two of them are equal: a duplicate."""
        known = any(tag in self._newer or tag in self._older for tag in tags)
        if len(self._newer) + len(tags) > self._half:
            self.forgotten += len(self._older)
            self._older, self._newer = self._newer, set()
        self._newer.update(tags)
        return not known and len(set(tags)) == len(tags)
