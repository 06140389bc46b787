"""A pair can be drawn once, after its verdict and never before, whatever the order of events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.core.segment import Row
from kpcache.worker.holding import HeldPair, Holding, HoldingError

SPECS = ("ECC_NIST_P256", "ECC_NIST_EDWARDS25519")

events = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(SPECS), st.just(0)),
        st.tuples(st.sampled_from(["record", "refuse"]), st.just(""), st.integers(0, 5)),
        st.tuples(st.sampled_from(["draw", "burn"]), st.sampled_from(SPECS), st.integers(0, 5)),
    ),
    max_size=60,
)


def add(holding: Holding, spec: str) -> int:
    return holding.add(Row(spec, 0, b"private", b"public", b"digest", b"tags", 1.0))


@given(events)
def test_what_is_drawn_is_what_was_recorded_oldest_first_and_once(story: list[tuple[str, str, int]]) -> None:
    holding = Holding()
    waiting: list[tuple[str, int]] = []
    recorded: dict[str, list[int]] = {spec: [] for spec in SPECS}
    gone: dict[str, list[int]] = {spec: [] for spec in SPECS}  # drawn or burnt, in that order
    sequences = [0]
    for event, spec, count in story:
        if event == "add":
            waiting.append((spec, add(holding, spec)))
        elif event == "draw":
            sequence, batch = holding.draw(spec, count)
            assert len(batch) == min(count, len(recorded[spec]) - len(gone[spec]))
            gone[spec] += [pair.serial for pair in batch]
            sequences.append(sequence)
        elif event == "burn":
            holding.burn(spec, count)
            gone[spec] += recorded[spec][len(gone[spec]) :][:count]
        else:
            judged, waiting = waiting[:count], waiting[count:]
            if event == "record":
                holding.record([serial for _, serial in judged])
                for name, serial in judged:
                    recorded[name].append(serial)
            else:
                holding.refuse([serial for _, serial in judged])
    for spec in SPECS:
        assert gone[spec] == recorded[spec][: len(gone[spec])]
    assert sequences == list(range(len(sequences)))


def test_what_is_burnt_is_the_oldest_and_gone() -> None:
    holding = Holding()
    serials = [add(holding, SPECS[0]) for _ in range(5)]
    holding.record(serials)
    holding.burn(SPECS[0], 2)
    holding.burn(SPECS[1], 2)
    assert [pair.serial for pair in holding.draw(SPECS[0], 1)[1]] == serials[2:3]
    holding.burn(SPECS[0], 9)
    assert holding.draw(SPECS[0], 9)[1] == []


@pytest.mark.parametrize("first", ["record", "refuse"])
@pytest.mark.parametrize("second", ["record", "refuse"])
def test_a_second_verdict_on_a_pair_is_refused(first: str, second: str) -> None:
    holding = Holding()
    serial = add(holding, SPECS[0])
    getattr(holding, first)([serial])
    with pytest.raises(HoldingError):
        getattr(holding, second)([serial])


@pytest.mark.parametrize("serial", [7, "1", None, [1], {}])
def test_a_verdict_on_something_else_is_refused(serial: object) -> None:
    holding = Holding()
    add(holding, SPECS[0])
    with pytest.raises(HoldingError):
        holding.record([serial])  # type: ignore[list-item]


def test_a_batch_fits_a_frame_and_the_rest_stays() -> None:
    holding = Holding()
    huge = b"x" * (3 * 1024 * 1024)
    holding.record([holding.add(Row(SPECS[0], 0, huge, b"", b"", b"", 1.0)) for _ in range(5)])
    assert [pair.serial for pair in holding.draw(SPECS[0], 5)[1]] == [1, 2, 3]
    assert [pair.serial for pair in holding.draw(SPECS[0], 5)[1]] == [4, 5]


def test_its_pairs_show_no_key_material() -> None:
    assert repr(HeldPair(3, 0, b"private", b"public", b"digest", b"tags", 1.0)) == "<HeldPair 3>"


def test_what_is_taken_for_the_reserve_is_the_oldest_held_and_gone() -> None:
    holding = Holding()
    serials = [add(holding, SPECS[0]) for _ in range(3)]
    add(holding, SPECS[0])
    holding.record(serials)
    assert holding.size == 4
    taken = [holding.take_oldest(SPECS[0]) for _ in range(4)]
    assert [pair and pair.serial for pair in taken] == [*serials, None]
    assert holding.draw(SPECS[0], 9)[1] == []
    assert holding.size == 1
