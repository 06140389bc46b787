"""One shard as the reserve sees it: whether it is up, what it was given to open, and what it found in it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import trio

from kpcache.core import segment
from kpcache.core.segment import TAG_BYTES
from kpcache.core.specs import SPECS
from kpcache.daemon.floor import ShardFaultError


class Back(NamedTuple):
    """A pair that a shard has taken out of a segment and not yet holds. ``age_s``: since it was made."""

    serial: int
    spec: str
    tags: bytes
    age_s: float


class Seat:
    """One shard's place: whether it is up, and the segment that it has and has not answered for."""

    def __init__(self) -> None:
        self.up = trio.Event()
        self.life = 0  # changes when the shard is lost
        self.asked = ""
        self.answered = trio.Event()
        self.answered_s = 0.0  # the loop's clock
        self.rows: list[Back] | None = None

    async def wait_up(self) -> None:
        """Until it is up, and not only was: it may be lost before whoever waits has its turn."""
        while not self.up.is_set():
            await self.up.wait()

    def lose(self) -> None:
        """It is gone. May be told again: who waits for it waits on."""
        if self.up.is_set():
            self.up = trio.Event()
        self.life, self.asked = self.life + 1, ""
        self.answered.set()


def back_of(row: Any) -> Back:
    """A row of a shard's ``restored``. Raises ``ShardFaultError``."""
    match row:
        case [int(serial), str(spec), bytes(tags), float(age_s)]:
            if spec in SPECS and len(tags) == segment.tags_bytes(spec) and age_s >= 0:
                return Back(serial, spec, tags, age_s)
    raise ShardFaultError("a pair from the reserve is malformed")


def tags_of(rows: Sequence[Back]) -> tuple[list[bytes], list[int]]:
    """All tags, and for each the index of its pair."""
    tags, owners = [], []
    for index, row in enumerate(rows):
        for start in range(0, len(row.tags), TAG_BYTES):
            tags.append(row.tags[start : start + TAG_BYTES])
            owners.append(index)
    return tags, owners
