"""Whose turn it is: users in turn, cgroups in turn within one, and first come first served within those."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kpcache.core.fair_queue import FairQueue, Identity


def everyone(_: int) -> bool:
    return True


def drained(queue: FairQueue[str]) -> list[str]:
    served = []
    while (item := queue.pop(everyone)) is not None:
        served.append(item)
    return served


def filled(*entries: str) -> FairQueue[str]:
    """Each entry names user and cgroup by its first two digits."""
    queue: FairQueue[str] = FairQueue()
    for entry in entries:
        queue.put(Identity(int(entry[0]), int(entry[1])), entry)
    return queue


def test_users_take_turns_however_many_requests_one_has() -> None:
    assert drained(filled("10a", "10b", "10c", "10d", "20x", "30y")) == [
        "10a",
        "20x",
        "30y",
        "10b",
        "10c",
        "10d",
    ]


def test_cgroups_take_turns_within_a_user_and_bring_it_no_more_turns() -> None:
    queue = filled("11a", "11b", "12c", "13d", "20x", "20y", "20z")
    assert drained(queue) == ["11a", "20x", "12c", "20y", "13d", "20z", "11b"]


def test_whoever_may_not_is_passed_over_and_keeps_its_turn() -> None:
    queue = filled("10a", "20b", "20c", "30d")
    assert queue.pop(lambda uid: uid != 1) == "20b"
    assert queue.pop(lambda uid: uid != 1) == "30d"
    assert queue.pop(everyone) == "10a"
    assert queue.pop(lambda uid: uid == 9) is None
    assert drained(queue) == ["20c"]


def test_one_that_leaves_is_gone_and_costs_nobody_a_turn() -> None:
    queue = filled("10a", "10b", "20c")
    assert queue.remove(Identity(1, 0), "10a")
    assert not queue.remove(Identity(1, 0), "10a")
    assert not queue.remove(Identity(7, 0), "70a")
    assert (len(queue), queue.waiting(1), queue.waiting(2), queue.users) == (2, 1, 1, [1, 2])
    assert drained(queue) == ["10b", "20c"]


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), max_size=40),
    st.integers(1, 5),
    st.integers(1, 4),
)
def test_the_place_that_is_foretold_is_the_place_in_which_one_is_served(
    entries: list[tuple[int, int]], uid: int, cgroup: int
) -> None:
    """Exactly so for a user without others before it; at most a turn or a cgroup's turn off else."""
    queue: FairQueue[str] = FairQueue()
    for number, (user, group) in enumerate(entries):
        queue.put(Identity(user, group), f"{number}")
    ahead = queue.ahead_of_next(Identity(uid, cgroup))
    queue.put(Identity(uid, cgroup), "new")
    served = drained(queue).index("new")
    assert abs(served - ahead) <= 4 + 3
    if uid == 5:
        assert served == ahead


class Turns(RuleBasedStateMachine):
    """Against plain lists: nobody is forgotten, nobody served twice, and no user waits more than a round."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[int] = FairQueue()
        self.lines: dict[Identity, deque[int]] = {}
        self.number = 0
        self.served_since: dict[int, int] = {}  # by user who waits: how many others were served since

    @rule(uid=st.integers(1, 3), cgroup=st.integers(1, 2))
    def put(self, uid: int, cgroup: int) -> None:
        who = Identity(uid, cgroup)
        self.queue.put(who, self.number)
        self.lines.setdefault(who, deque()).append(self.number)
        self.served_since.setdefault(uid, 0)
        self.number += 1

    @precondition(lambda self: self.lines)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from(sorted(self.lines)))
        item = data.draw(st.sampled_from(list(self.lines[who])))
        assert self.queue.remove(who, item)
        self._gone(who, item)

    @rule()
    def pop(self) -> None:
        item = self.queue.pop(everyone)
        if item is None:
            assert not self.lines
            return
        who = next(who for who, line in self.lines.items() if item in line)
        assert self.lines[who][0] == item, "first in, first out within a cgroup"
        assert self.served_since[who.uid] < 3, "within a round"
        self._gone(who, item)
        for uid in self.served_since:
            self.served_since[uid] = 0 if uid == who.uid else self.served_since[uid] + 1

    def _gone(self, who: Identity, item: int) -> None:
        self.lines[who].remove(item)
        if not self.lines[who]:
            del self.lines[who]
        if all(other.uid != who.uid for other in self.lines):
            del self.served_since[who.uid]

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.queue) == sum(map(len, self.lines.values()))
        for uid in (1, 2, 3):
            assert self.queue.waiting(uid) == sum(
                len(line) for who, line in self.lines.items() if who.uid == uid
            )
        assert set(self.queue.users) == {who.uid for who in self.lines}


TestTurns = pytest.mark.filterwarnings("error")(Turns.TestCase)
