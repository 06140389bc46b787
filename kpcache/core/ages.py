"""How old the pairs in one place are that are given out in the order in which they came."""

import math
from collections import deque


class AgeLine:
    """The times at which what lies there was made, oldest first; without the things themselves."""

    __slots__ = ("_batches", "_size")

    def __init__(self) -> None:
        self._batches: deque[tuple[float, int]] = deque()
        self._size = 0

    @property
    def oldest(self) -> float:
        """When the oldest was made; infinity if there is none."""
        return self._batches[0][0] if self._batches else math.inf

    def add(self, made: float, count: int) -> None:
        """``count`` came that were made at this time. One that is older than those before it makes them
        seem as old, never the other way round: what is retired too early is only burnt."""
        if count <= 0:
            return
        self._size += count
        while self._batches and self._batches[-1][0] >= made:
            count += self._batches.pop()[1]
        self._batches.append((made, count))

    def remove(self, count: int) -> None:
        """The ``count`` oldest are gone."""
        while count > 0 and self._batches:
            made, size = self._batches.popleft()
            self._size -= min(size, count)
            if size > count:
                self._batches.appendleft((made, size - count))
            count -= size

    def take(self, count: int) -> list[float]:
        """The times of the ``count`` oldest, one each, which are gone from here."""
        times: list[float] = []
        while len(times) < count and self._batches:
            made, size = self._batches[0]
            part = min(size, count - len(times))
            times += [made] * part
            self.remove(part)
        return times

    def remove_behind(self, spared: int, count: int) -> None:
        """The ``count`` oldest but for the ``spared`` very oldest are gone."""
        kept = self.take(spared)
        self.remove(count)
        self._batches.extendleft((made, 1) for made in reversed(kept))
        self._size += len(kept)

    def keep(self, count: int) -> None:
        """Only the ``count`` newest are still there: cheaper than to tell of each that goes."""
        self.remove(self._size - count)

    def made_by(self, time: float) -> int:
        """How many were made at this time or before."""
        number = 0
        for made, size in self._batches:
            if made > time:
                break
            number += size
        return number
