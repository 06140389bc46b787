"""Keeps pairs of one life of the machine out of every other: see ``worker/generation`` for what tells them.

After a machine was copied, all that was made before may be given out by the other copy as well. So the
generation is read before a pair is taken, and again before its answer's first byte goes out; where it has
changed, everything is burnt first.
"""

from collections.abc import Callable, Sequence
from typing import Final

import trio

from kpcache.daemon.notices import log
from kpcache.worker.generation import Source, Unknown

# Where nobody asks for pairs, a change is noticed after so long at most.
LOOK_INTERVAL_S: Final = 1.0


class Fence:
    """``number`` is the generation that pairs must be of."""

    __slots__ = ("_cross", "_read", "changes", "lacks", "number", "source")

    def __init__(self, source: Source, lacks: Sequence[str] = ()) -> None:
        """``lacks``: why there is no better source."""
        self.source = source
        self.lacks = [*lacks]
        self._read = source.read
        self.number = source.read()
        self.changes = 0  # copies of this machine that were noticed, or may have been made unseen
        self._cross: Callable[[], None] = lambda: None

    def on_change(self, cross: Callable[[], None]) -> None:
        """``cross`` burns what was made before; ``number`` is the new one when it is called."""
        self._cross = cross

    def stands(self) -> bool:
        """Whether the machine is still the one that it was at the last look. If not, all pairs are burnt when
        this returns."""
        try:
            now = self._read()
        except OSError as error:
            now = self._lose_source(error)
        if now == self.number:
            return True
        # First: should burning fail half-way, what is left is still of another generation.
        self.number = now
        self.changes += 1
        self._cross()
        return False

    def _lose_source(self, error: OSError) -> int:
        """What cannot be read any more may have told of a copy: take it for one, and go on without."""
        why = f"{self.source.path}: {error.strerror}"
        log.error("copies of this machine are not noticed any more: %s; restart the daemon to try again", why)
        self.lacks.append(why)
        self.source = Unknown((self.number + 1) % 2**64)
        self._read = self.source.read
        return self._read()

    async def watch(self) -> None:
        """Look now and then, until cancelled: at a log when something comes."""
        while (fd := self.source.fd) is not None:
            await trio.lowlevel.wait_readable(fd)
            self.stands()
        while self.source.mode != Unknown.mode:
            await trio.sleep(LOOK_INTERVAL_S)
            self.stands()
