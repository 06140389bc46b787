"""A queue of those who wait: first in, first out for each, and each in turn.

The turns go round over users, and within one user over cgroups: who may make cgroups at will gets no more
turns than another user by that. Within a cgroup the one who came first is first.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, Generic, NamedTuple, TypeVar

T = TypeVar("T")

# More users than this are not looked at one by one to foretell a place.
_MANY: Final = 64


class Identity(NamedTuple):
    """Whom a request is counted for. ``cgroup`` is the kernel's id of it, 0 where that is not known."""

    uid: int
    cgroup: int = 0


# Not plain dicts: those step over the holes that removals leave in front, so each next pop costs more.
_Line = OrderedDict[T, None]


class FairQueue(Generic[T]):
    """Items are hashable and in the queue once. Whoever is at the front of a turn has waited longest."""

    def __init__(self) -> None:
        self._users: OrderedDict[int, OrderedDict[int, _Line[T]]] = OrderedDict()
        self._counts: dict[int, int] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def waiting(self, uid: int) -> int:
        """How many of this user's are in it."""
        return self._counts.get(uid, 0)

    @property
    def users(self) -> list[int]:
        """Who is waiting, the next in turn first."""
        return list(self._users)

    def put(self, who: Identity, item: T) -> None:
        lines = self._users.setdefault(who.uid, OrderedDict())
        lines.setdefault(who.cgroup, OrderedDict())[item] = None
        self._counts[who.uid] = self._counts.get(who.uid, 0) + 1
        self._size += 1

    def pop(self, may: Callable[[int], bool]) -> T | None:
        """Take out the next in turn among the users who ``may``; None if there is none.

        Those who may not keep their place in the turn.
        """
        uid = next(filter(may, self._users), None)
        if uid is None:
            return None
        lines = self._users[uid]
        cgroup, line = next(iter(lines.items()))
        item = next(iter(line))
        self._users.move_to_end(uid)
        lines.move_to_end(cgroup)
        self.remove(Identity(uid, cgroup), item)
        return item

    def remove(self, who: Identity, item: T) -> bool:
        """Take ``item`` out, wherever it stands; whether it was there."""
        lines = self._users.get(who.uid)
        line = lines.get(who.cgroup) if lines else None
        if lines is None or line is None or item not in line:
            return False
        del line[item]
        self._size -= 1
        self._counts[who.uid] -= 1
        if not line:
            del lines[who.cgroup]
        if not lines:
            del self._users[who.uid], self._counts[who.uid]
        return True

    def pop_last_of_heaviest(self, than: int) -> T | None:
        """Take out the last one of the user who has the most in it, if those are more than ``than``."""
        uid = max(self._counts, key=self._counts.__getitem__, default=-1)
        if uid < 0 or self._counts[uid] <= than:
            return None
        cgroup, line = max(self._users[uid].items(), key=lambda entry: len(entry[1]))
        item = next(reversed(line))
        self.remove(Identity(uid, cgroup), item)
        return item

    def ahead_of_next(self, who: Identity) -> int:
        """How many are served before one that ``who`` would put in now, if nobody else comes.

        Each other user gets as many turns as this one has, itself included; likewise its other cgroups.
        """
        lines: Mapping[int, _Line[T]] = self._users.get(who.uid, {})
        own_line = len(lines.get(who.cgroup, ())) + 1
        own = sum(min(len(line), own_line) for group, line in lines.items() if group != who.cgroup) + own_line
        count_of_others = self._size - self.waiting(who.uid)
        if len(self._counts) > _MANY:
            # As if each of them had as many: so that a crowd costs no time.
            others = min(count_of_others, own * len(self._counts))
        else:
            others = sum(min(count, own) for uid, count in self._counts.items() if uid != who.uid)
        return own - 1 + others
