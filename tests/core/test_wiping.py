"""Which variables have freed memory overwritten, beside what an operator has set."""

import pytest

from kpcache.worker.wiping import missing

ALL = {
    "MALLOC_PERTURB_": "165",
    "PYTHONMALLOC": "malloc",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
}


def test_all_of_them_are_wanted_and_then_none_is_missing() -> None:
    assert missing({"HOME": "/root"}) == ALL
    assert missing(ALL) == {}


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        ({"MALLOC_PERTURB_": "7"}, {"PYTHONMALLOC", "GLIBC_TUNABLES"}),
        ({"PYTHONMALLOC": "pymalloc_debug"}, {"MALLOC_PERTURB_", "GLIBC_TUNABLES"}),
        ({"GLIBC_TUNABLES": "glibc.malloc.tcache_count=3"}, {"MALLOC_PERTURB_", "PYTHONMALLOC"}),
        ({"GLIBC_TUNABLES": "glibc.malloc.perturb=7"}, {"PYTHONMALLOC", "GLIBC_TUNABLES"}),
        ({"MALLOC_PERTURB_": "0"}, set()),
    ],
)
def test_what_an_operator_has_set_is_left_as_it_is(chosen: dict[str, str], wanted: set[str]) -> None:
    assert set(missing(chosen)) == wanted
    assert missing({**chosen, **missing(chosen)}) == {}


def test_other_tunables_are_kept() -> None:
    tunables = "glibc.malloc.arena_max=2:glibc.malloc.perturb=7"
    assert (
        missing({"GLIBC_TUNABLES": tunables})["GLIBC_TUNABLES"] == f"{tunables}:glibc.malloc.tcache_count=0"
    )
