"""How old what lies somewhere is, first in first out."""

import math

from hypothesis import given
from hypothesis import strategies as st

from kpcache.core.ages import AgeLine

steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 20), st.integers(0, 5)),
        st.tuples(st.just("remove"), st.integers(0, 8), st.just(0)),
        st.tuples(st.just("take"), st.integers(0, 8), st.just(0)),
        st.tuples(st.just("behind"), st.integers(0, 4), st.integers(0, 4)),
        st.tuples(st.just("keep"), st.integers(0, 12), st.just(0)),
    ),
    max_size=40,
)


@given(steps)
def test_it_is_as_a_list_of_all_times_would_be(done: list[tuple[str, int, int]]) -> None:
    """But for one that comes out of order: what lies before it then counts as no younger than it."""
    line, times = AgeLine(), list[float]()
    for step, first, second in done:
        if step == "add":
            line.add(float(first), second)
            if second:
                times = [min(time, float(first)) for time in times] + [float(first)] * second
        elif step == "remove":
            line.remove(first)
            times = times[first:]
        elif step == "take":
            assert line.take(first) == times[:first]
            times = times[first:]
        elif step == "behind":
            line.remove_behind(first, second)
            times = times[:first] + times[first + second :]
        else:
            line.keep(first)
            times = times[max(len(times) - first, 0) :]
        assert line.oldest == (times[0] if times else math.inf)
        for time in range(-1, 22):
            assert line.made_by(time) == sum(each <= time for each in times)
