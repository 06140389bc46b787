"""Keeps pairs of one life of the machine out of every other: see ``worker/generation`` for what tells them.

After a machine was copied, all that was made before may be given out by the other copy as well. So the
generation is read before a pair is taken, and again before its answer's first byte goes out; where it has
changed, everything is burnt first.
"""

from collections.abc import Callable, Sequence
from typing import Final, NoReturn

import trio

from kpcache.worker.generation import Source

# Where nobody asks for pairs, a change is noticed after so long at most.
LOOK_INTERVAL_S: Final = 1.0


class Fence:
    """``number`` is the generation that pairs must be of."""

    __slots__ = ("_cross", "_read", "lacks", "number", "source")

    def __init__(self, source: Source, lacks: Sequence[str] = ()) -> None:
        """``lacks``: why there is no better source."""
        self.source = source
        self.lacks = lacks
        self._read = source.read
        self.number = source.read()
        self._cross: Callable[[], None] = lambda: None

    def on_change(self, cross: Callable[[], None]) -> None:
        """``cross`` burns what was made before; ``number`` is the new one when it is called."""
        self._cross = cross

    def stands(self) -> bool:
        """Whether the machine is still the one that it was at the last look. If not, all pairs are burnt when
        this returns. Raises ``OSError`` where nobody can tell."""
        now = self._read()
        if now == self.number:
            return True
        self.number = now
        self._cross()
        return False

    async def watch(self) -> NoReturn:
        """Look now and then, until cancelled."""
        while True:
            await trio.sleep(LOOK_INTERVAL_S)
            self.stands()
