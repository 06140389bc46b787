"""Who makes room for a newcomer is found at the same cost however many connections there are."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from kpcache.daemon.session import Session
from kpcache.daemon.user import User


@dataclass(eq=False)
class FakeSession:
    """What a user's record asks a session for, and how often it asked."""

    incomplete: bool = False
    busy: bool = False
    asked: int = 0

    @property
    def is_incomplete(self) -> bool:
        self.asked += 1
        return self.incomplete

    @property
    def is_busy(self) -> bool:
        self.asked += 1
        return self.busy


def user_of(sessions: list[FakeSession]) -> User:
    user = User(1000)
    for session in sessions:
        user.add(cast(Session, session))
    return user


def those_who_go(user: User) -> Iterator[FakeSession]:
    while (session := user.first_to_go()) is not None:
        yield cast(FakeSession, session)
        user.remove(session)


STEPS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["active", "begin", "end", "busy", "leave"])))


@given(STEPS)
def test_the_longest_incomplete_go_first_then_the_longest_idle_and_none_that_is_busy(
    steps: list[tuple[int, str]],
) -> None:
    sessions = [FakeSession() for _ in range(6)]
    user = user_of(sessions)
    idle = list(sessions)
    begun: list[FakeSession] = []
    left: set[int] = set()
    for number, step in steps:
        session = sessions[number]
        note = cast(Session, session)
        if step == "active":
            user.note_activity(note)
            idle.remove(session)
            idle.append(session)
        elif step == "begin":
            user.note_incomplete(note)
            session.incomplete = True
            begun = [each for each in begun if each is not session] + [session]
        elif step == "end":
            session.incomplete = False
        elif step == "busy":
            session.busy = True
        else:
            user.remove(note)
            left.add(number)
    gone = {id(sessions[number]) for number in left}
    expected = [each for each in begun if each.incomplete and id(each) not in gone]
    expected += [each for each in idle if not each.busy and id(each) not in gone and each not in expected]
    assert list(map(id, those_who_go(user))) == list(map(id, expected))


def test_the_search_does_not_grow_with_the_number_of_connections() -> None:
    """Not for idle ones, nor where all are busy, nor where all once began a message."""
    for fake in (FakeSession(), FakeSession(busy=True), FakeSession(incomplete=False, busy=True)):
        sessions = [FakeSession(fake.incomplete, fake.busy) for _ in range(4000)]
        user = user_of(sessions)
        for session in sessions:
            user.note_incomplete(cast(Session, session))
        for _ in range(3):
            before = sum(session.asked for session in sessions)
            user.first_to_go()
            assert sum(session.asked for session in sessions) - before <= 2 * 256


def test_an_idle_connection_behind_many_busy_ones_is_found_in_the_end() -> None:
    sessions = [FakeSession(busy=True) for _ in range(1000)]
    sessions[700].busy = False
    user = user_of(sessions)
    found = [user.first_to_go() for _ in range(3)]
    assert found == [None, None, cast(Session, sessions[700])]


def test_a_connection_that_was_forgotten_does_not_come_back_by_its_last_words() -> None:
    session = cast(Session, FakeSession(incomplete=True))
    user = user_of([])
    user.note_activity(session)
    user.note_incomplete(session)
    assert user.first_to_go() is None
    assert user.connections == 0
