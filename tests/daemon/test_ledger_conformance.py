"""What any store of the ledger must do, whatever it is made of: see ``Store``."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpcache.daemon.ledger_batch import Batch, MakerStart
from kpcache.daemon.ledger_store import MAX_EVIDENCE, LedgerUnavailableError, Store
from tests.ledgers import (
    BY,
    NOW_S,
    SPEC,
    Disk,
    Faults,
    Memory,
    MemoryStore,
    batch_of,
    close_all,
    closed_file,
    made_of,
    record,
    refused,
    tag,
)


class Place:
    """Where a store is opened, closed and opened again, and what is wrong there."""

    def __init__(self, faults: Faults, make: Callable[[str], Store]) -> None:
        self.faults = faults
        self._make = make
        self._last: Store | None = None

    def closed(self) -> Store:
        """The store of another life, not open yet; that of the life before is closed."""
        if self._last is not None:
            self._last.close()
        self._last = self._make(self._last.id if self._last is not None else "")
        return self._last

    def open(self) -> Store:
        store = self.closed()
        store.connect()
        return store

    def break_down(self, lands: bool = False) -> None:
        self.faults.error, self.faults.lands = "disk I/O error", lands

    def heal(self) -> None:
        self.faults.error = ""


def on_disk(folder: Path) -> Place:
    disk = Disk()
    return Place(disk, lambda id_: closed_file(folder, id_, disk=disk))


def in_memory(_folder: Path) -> Place:
    memory = Memory()
    return Place(memory, lambda _id: MemoryStore(memory))


Kind = Callable[[Path], Place]
KINDS: Final[list[Kind]] = [on_disk, in_memory]


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    tmp_path.chmod(0o700)
    made: Place = request.param(tmp_path)
    yield made
    close_all()


def test_it_is_nothing_before_it_was_open_and_one_ledger_over_all_lives(place: Place) -> None:
    store = place.closed()
    assert (store.id, store.life, store.rows, store.rolled_back) == ("", 0, 0, "")
    assert list(store.standing) == []
    store.connect()
    first = store.id
    assert (bool(first), store.life) == (True, 1)
    store.connect()
    assert store.life == 1, "it was open"
    again = place.open()
    assert (again.id, again.life, again.rolled_back) == (first, 2, "")


# --- pairs


def test_new_tags_are_recorded_and_counted_and_stay(place: Place) -> None:
    store = place.open()
    assert record(store, [1, 2], [3, 4]) == (set(), [])
    assert store.rows == 4
    again = place.open()
    assert again.rows == 4
    assert again.unknown([tag(n) for n in (1, 2, 3, 4)]) == set()


def test_a_duplicate_is_refused_within_a_batch_across_batches_and_across_lives(place: Place) -> None:
    store = place.open()
    assert refused(store, [1, 2], [3, 1], [4, 4], [5, 6]) == [1, 2]
    assert refused(store, [7, 8], [9, 6]) == [1]
    store = place.open()
    assert refused(store, [10, 8], [11, 12]) == [0]
    assert refused(store, [13, 9]) == [0], "what came with a duplicate is recorded as well"


def test_the_same_pair_twice_in_one_batch_is_one_too_many(place: Place) -> None:
    assert refused(place.open(), [1], [1]) == [1]


def test_rows_count_each_tag_once(place: Place) -> None:
    store = place.open()
    record(store, [1, 2], [2, 3], [4, 4])
    record(store, [4, 5])
    assert store.rows == 5
    assert place.open().rows == 5


def test_a_verdict_names_the_pair_by_its_place_in_the_batch(place: Place) -> None:
    store = place.open()
    record(store, [1])
    batch = Batch([made_of([2], [3]), made_of([4], [1])], int(NOW_S // 60))
    assert store.record(batch).refused == {(1, 1)}


# --- failures


@pytest.mark.parametrize("lands", [False, True])
def test_a_batch_that_is_tried_again_is_no_duplicate_of_itself(place: Place, lands: bool) -> None:
    store = place.open()
    record(store, [1, 2])
    place.break_down(lands)
    batch = batch_of([3, 4], [5, 6])
    with pytest.raises(LedgerUnavailableError, match="disk I/O error"):
        store.record(batch)
    assert store.rows == 2, "nothing of it is acknowledged"
    place.heal()
    store.connect()
    assert store.record(batch) == (set(), [])
    assert (store.rows, list(store.standing)) == (6, [])
    assert refused(store, [6, 7]) == [0], "and is known from then on"


@pytest.mark.parametrize("lands", [False, True])
def test_a_batch_that_is_tried_again_tells_of_its_duplicates_and_leaves_one_evidence(
    place: Place, lands: bool
) -> None:
    store = place.open()
    record(store, [1, 2])
    place.break_down(lands)
    batch = batch_of([3, 4], [5, 1])
    for _ in range(2):
        with pytest.raises(LedgerUnavailableError):
            store.record(batch)
        place.heal()
        store.connect()
        place.break_down(lands)
    place.heal()
    verdict = store.record(batch)
    assert verdict.refused == {(0, 1)}
    assert list(store.standing) == verdict.duplicates
    assert list(place.open().standing) == verdict.duplicates


def test_a_store_that_is_closed_records_nothing(place: Place) -> None:
    store = place.open()
    place.break_down()
    with pytest.raises(LedgerUnavailableError):
        record(store, [1])
    place.heal()
    with pytest.raises(LedgerUnavailableError, match="closed"):
        record(store, [2])
    store.connect()
    assert store.unknown([tag(1), tag(2)]) == {0, 1}
    store.close()
    store.close()
    with pytest.raises(LedgerUnavailableError):
        record(store, [3])


def test_one_that_cannot_be_opened_yet_is_opened_later(place: Place) -> None:
    place.open()
    place.break_down()
    store = place.closed()
    with pytest.raises(LedgerUnavailableError):
        store.connect()
    place.heal()
    store.connect()
    assert (store.life, refused(store, [1])) == (2, [])


# --- the alarm


def test_what_is_known_of_both_pairs_is_told(place: Place) -> None:
    record(place.open(), [1, 2], by=MakerStart(0, 7, 300))
    store = place.open()
    batch = Batch([made_of([3, 4]), made_of([5, 2])], int(NOW_S // 60) + 100)
    [found] = store.record(batch).duplicates
    assert (found.spec, found.public, found.by, found.life) == (SPEC, b"spki 5", BY, 2)
    assert found.found_s == NOW_S + 6000
    assert (found.earlier.by, found.earlier.life) == (MakerStart(0, 7, 300), 1)
    assert found.earlier.recorded_s == NOW_S
    assert len(found.earlier.fingerprint) == 8


def test_the_alarm_stands_over_lives_until_it_is_cleared(place: Place) -> None:
    store = place.open()
    record(store, [1])
    found = record(store, [1]).duplicates
    assert len(found) == 1
    assert list(store.standing) == found
    store = place.open()
    assert list(store.standing) == found
    store.clear_alarm()
    assert list(store.standing) == []
    assert list(place.open().standing) == []


def test_after_it_was_cleared_the_same_can_be_found_again(place: Place) -> None:
    store = place.open()
    record(store, [1])
    record(store, [1])
    store.clear_alarm()
    found = record(store, [1]).duplicates
    assert list(store.standing) == list(place.open().standing) == found != []


def test_the_evidence_of_one_batch_is_bounded(place: Place) -> None:
    store = place.open()
    pairs = [[n] for n in range(2 * MAX_EVIDENCE)]
    record(store, *pairs)
    verdict = record(store, *pairs)
    assert len(verdict.refused) == 2 * MAX_EVIDENCE
    assert len(verdict.duplicates) == len(store.standing) == MAX_EVIDENCE


def test_evidence_that_could_not_be_recorded_is_recorded_later_and_once(place: Place) -> None:
    store = place.open()
    record(store, [1], [2], [3])
    first, second = record(store, [1], [2]).duplicates
    store.clear_alarm()
    store = place.open()
    [third] = record(store, [3]).duplicates
    store.raise_alarm([third, first])
    store.raise_alarm([second, first])
    assert sorted(store.standing, key=lambda each: each.public) == [first, second, third]
    again = place.open()
    assert sorted(again.standing, key=lambda each: each.public) == [first, second, third], "lives and all"
    again.clear_alarm()
    assert list(place.open().standing) == []


@pytest.mark.parametrize("lands", [False, True])
def test_what_an_administrator_does_is_told_if_it_fails_and_can_be_done_again(
    place: Place, lands: bool
) -> None:
    store = place.open()
    record(store, [1])
    [found] = record(store, [1]).duplicates
    another = replace(found, public=b"another")
    place.break_down(lands)
    acts = (store.clear_alarm, lambda: store.raise_alarm([another]), store.acknowledge, store.raise_floor)
    for act in acts:
        with pytest.raises(LedgerUnavailableError):
            act()
        place.heal()
        store.connect()
        place.break_down(lands)
    place.heal()
    assert {another if lands else found} <= set(store.standing) <= ({found, another} if lands else {found})
    store.clear_alarm()
    store.acknowledge()
    again = place.open()
    assert (list(again.standing), again.rolled_back) == ([], "")


# --- the reserve


def test_a_name_is_claimed_once_and_a_restart_does_not_forget_it(place: Place) -> None:
    store = place.open()
    assert [store.claim(name) for name in ("one", "one", "other")] == [True, False, True]
    assert [place.open().claim(name) for name in ("one", "new")] == [False, True]


@pytest.mark.parametrize("lands", [False, True])
def test_a_claim_that_fails_is_told_and_stands_if_it_had_landed(place: Place, lands: bool) -> None:
    store = place.open()
    place.break_down(lands)
    with pytest.raises(LedgerUnavailableError):
        store.claim("one")
    place.heal()
    assert store.claim("one") is not lands


def test_the_indexes_of_tags_that_are_not_recorded(place: Place) -> None:
    store = place.open()
    record(store, [1, 2], [3, 4])
    assert store.unknown([]) == set()
    assert store.unknown([tag(1), tag(2), tag(3), tag(4)]) == set()
    assert store.unknown([tag(9), tag(1), tag(8), tag(4), tag(9)]) == {0, 2, 4}
    assert store.unknown([tag(n) for n in range(2000)]) == {0, *range(5, 2000)}


def test_the_floor_rises_to_the_life_that_raises_it_and_stays(place: Place) -> None:
    assert place.open().floor == 1
    store = place.open()
    assert store.floor == 1
    store.raise_floor()
    assert store.floor == 2
    store = place.open()
    assert (store.life, store.floor) == (3, 2)
    store.clear_alarm()
    assert (store.floor, place.open().floor) == (3, 3)


# --- any story

stories = st.lists(
    st.one_of(
        st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=5),
        st.sampled_from(["restart", "fails", "fails and lands"]),
    ),
    max_size=20,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60)
@given(story=stories)
def test_it_does_what_a_set_would_whatever_fails(
    tmp_path_factory: pytest.TempPathFactory, kind: Kind, story: list[str | list[tuple[int, int]]]
) -> None:
    place, known = kind(tmp_path_factory.mktemp("ledger")), set[bytes]()
    store = place.open()
    for step in story:
        if step == "restart":
            place.heal()
            store = place.open()
            continue
        if isinstance(step, str):
            place.break_down(step == "fails and lands")
            continue
        batch = batch_of(*step)
        if place.faults.error:
            with pytest.raises(LedgerUnavailableError):
                store.record(batch)
            place.heal()
            store.connect()
        expected = []
        for index, each in enumerate(step):
            tags = [tag(n) for n in each]
            if len(set(tags)) < len(tags) or not known.isdisjoint(tags):
                expected.append(index)
            known.update(tags)
        assert sorted(pair for _, pair in store.record(batch).refused) == expected
        assert store.rows == len(known)
    place.heal()
    assert place.open().rolled_back == ""
    close_all()
