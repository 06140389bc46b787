"""The desk at which a pool's pairs are asked for: shares, turns and places in one."""

import pytest

from kpcache.core import desk as desk_module
from kpcache.core.desk import Desk
from kpcache.core.fair_queue import Identity
from kpcache.core.refill import PoolView

ALICE, BOB = Identity(1), Identity(2)


def desk(target: int = 10, kept: float = 20) -> Desk[str]:
    return Desk(target, kept, 0.0)


def taken(it: Desk[str], who: Identity, at_hand: int) -> int:
    """How many of the pairs that are there a user gets."""
    for number in range(at_hand):
        it.asked(who.uid, 1.0)
        if not it.may_take(who.uid, at_hand - number, 1.0):
            return number
        it.took(who.uid)
    return at_hand


def test_a_user_who_took_much_waits_until_more_is_there_than_is_kept_while_others_take_that() -> None:
    it = desk()
    it.asked(BOB.uid, 0.0)
    assert taken(it, ALICE, 10) == 8
    it.queue.put(ALICE, "alice 1")
    it.queue.put(ALICE, "alice 2")
    it.queue.put(BOB, "bob")
    assert it.servable(2, 1.0) == 1
    assert it.ahead_of(ALICE, 2, 1.0) == 3
    assert it.next_in_turn(2, 1.0) == "bob"
    it.took(BOB.uid)
    assert it.next_in_turn(1, 1.0) is None
    it.made(2, missing=7)
    assert it.servable(3, 1.0) == 1
    assert it.next_in_turn(3, 1.0) == "alice 1"
    it.took(ALICE.uid)
    assert it.next_in_turn(2, 1.0) is None


def test_a_pool_that_is_full_again_is_owed_nothing() -> None:
    it = desk()
    it.asked(BOB.uid, 0.0)
    taken(it, ALICE, 10)
    it.made(1, missing=3)
    assert it.shares.owes(ALICE.uid) == pytest.approx(3)
    it.made(1, missing=0)
    assert it.shares.owes(ALICE.uid) == 0
    assert taken(it, ALICE, 10) == 8


def test_another_target_keeps_another_share() -> None:
    it = desk()
    it.asked(BOB.uid, 0.0)
    it.resize(100)
    assert taken(it, ALICE, 100) == 80


def test_a_pool_without_a_target_keeps_nothing_back() -> None:
    it = desk(target=0)
    it.asked(BOB.uid, 0.0)
    assert taken(it, ALICE, 100) == 100
    it.queue.put(ALICE, "one")
    assert it.servable(0, 1.0) == 1


def test_the_queue_has_an_end_and_one_user_half_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "MAX_WAITING", 4)
    it = desk()
    for number in range(2):
        assert not it.may_queue(ALICE.uid)
        it.queue.put(ALICE, f"alice {number}")
    assert "of this user" in it.may_queue(ALICE.uid)
    for number in range(2):
        assert not it.may_queue(BOB.uid)
        it.queue.put(BOB, f"bob {number}")
    assert it.may_queue(3) == "4 requests wait already"


def test_what_was_given_and_missed_is_learned_when_the_plan_asks() -> None:
    it = desk()
    for _ in range(10):
        it.took(ALICE.uid)
        it.missed()
        it.missed()
        it.asked(BOB.uid, 1.0)  # asked for, and kept from it by a limit or a share: nothing to make for it
    assert it.demand.rate(1.0) == 0
    it.note(1.0)
    assert it.demand.rate(1.0) == pytest.approx(1.0)
    it.note(1.0)
    assert it.demand.rate(1.0) == pytest.approx(1.0)


def test_the_least_burden_is_that_of_the_waiting_user_who_cost_least() -> None:
    it = desk()
    owed = {1: 9.0, 2: 0.5, 3: 0.0}
    assert it.least_burden(owed.__getitem__) == 0.0
    it.queue.put(ALICE, "a")
    assert it.least_burden(owed.__getitem__) == 9.0
    it.queue.put(BOB, "b")
    assert it.least_burden(owed.__getitem__) == 0.5


def test_pairs_that_are_there_are_not_waited_for() -> None:
    it = desk(kept=0)
    assert it.ahead_of(ALICE, 0, 1.0) == 0
    it.queue.put(ALICE, "a")
    it.queue.put(ALICE, "b")
    assert it.ahead_of(ALICE, 0, 1.0) == 2
    assert it.ahead_of(BOB, 0, 1.0) == 1
    assert it.ahead_of(ALICE, 1, 1.0) == 1


def test_a_full_queue_has_a_place_for_a_user_with_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "MAX_WAITING", 4)
    it = desk()
    for number in range(2):
        it.queue.put(ALICE, f"alice {number}")
        it.queue.put(BOB, f"bob {number}")
    assert it.may_queue(3)
    assert it.place_for(3) in ("alice 1", "bob 1")
    it.queue.put(Identity(3), "carol")
    assert it.place_for(4) is not None  # the other one's last
    it.queue.put(Identity(4), "dave")
    assert it.place_for(5) is None  # nobody has more than one
    assert len(it.queue) == 4


def test_nobody_owes_for_a_pool_without_a_target_once_nobody_waits() -> None:
    it = desk(target=0)
    for number in range(3):
        it.queue.put(ALICE, f"{number}")
        it.took(ALICE.uid)
    known = PoolView("RSA_2048", 0, 0, 0, 0, 0, 0.065)
    assert it.view(known, 0, lambda _: 0.0, 1.0) is not None
    assert it.shares.owes(ALICE.uid) == 3
    for number in range(3):
        it.queue.remove(ALICE, f"{number}")
    assert it.view(known, 0, lambda _: 0.0, 1.0) is None
    assert it.shares.owes(ALICE.uid) == 0


def test_a_pool_that_keeps_nothing_back_bars_nobody() -> None:
    it = desk(target=2)
    it.asked(BOB.uid, 0.0)
    for _ in range(50):
        it.took(ALICE.uid)
    assert it.may_take(ALICE.uid, 0, 1.0)
