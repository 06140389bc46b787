"""What a reload changes: every setting either at once or at a restart, and nothing in between."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.cli.config_file import defaults_for
from kpcache.core.config import load
from kpcache.core.reload import AT_A_RESTART, AT_ONCE, after_reload, compare, settings
from kpcache.core.settings import Config
from kpcache.core.specs import MAKEABLE

ROOT = defaults_for({}, 0, usable_cpus=4)
LIMIT = {"rate_per_s": 2.0, "burst": 5}


def config(**tables: Any) -> Config:
    return load(tables, defaults=ROOT)


def kinds_of(row: object, name: str) -> set[str]:
    """The settings of a part of ``Config``, read from its dataclasses and from nothing else."""
    if isinstance(row, dict):
        return set().union(*(kinds_of(each, name) for each in row.values()))
    return {f"{name}.{key.name}" for key in fields(row)} if is_dataclass(row) else {name}


def test_every_setting_is_changed_at_once_or_at_a_restart() -> None:
    there_are = set().union(
        *(kinds_of(getattr(config(), table.name), table.name) for table in fields(Config))
    )
    assert there_are == AT_ONCE | AT_A_RESTART
    assert not AT_ONCE & AT_A_RESTART
    assert {each.kind for each in settings(config())} == there_are


def other(value: object) -> Any:
    """A value of the same type that is not the same."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, Path):
        return value / "other"
    if isinstance(value, tuple):
        return (*value, "other")
    assert isinstance(value, str)
    return f"{value}other"


def changed(base: Config, table: str, key: str = "") -> Config:
    """``base`` with another value there; ``key`` of every pool."""
    row: Any = getattr(base, table)
    if isinstance(row, dict):
        new: Any = {name: replace(each, **{key: other(getattr(each, key))}) for name, each in row.items()}
    else:
        new = replace(row, **{key: other(getattr(row, key))}) if key else other(row)
    return replace(base, **{table: new})


@pytest.mark.parametrize("kind", sorted(AT_ONCE | AT_A_RESTART))
def test_a_setting_that_differs_is_named_with_its_path_and_no_other_is(kind: str) -> None:
    base = config()
    wanted = changed(base, *kind.split("."))
    found = compare(base, wanted)
    paths = [kind]
    if kind.startswith("pools."):
        paths = [kind.replace(".", f".{spec}.") for spec in MAKEABLE]
    assert [*found.at_once, *found.at_a_restart] == paths
    assert bool(found.at_once) == (kind in AT_ONCE)
    assert after_reload(base, wanted) == (wanted if kind in AT_ONCE else base)


def test_limits_are_one_setting() -> None:
    base = config(limits=[LIMIT])
    assert compare(base, config(limits=[LIMIT, {**LIMIT, "uid": 7}])).at_once == ("limits",)
    assert compare(base, config()).at_once == ("limits",)
    assert compare(base, config(limits=[LIMIT])).at_once == ()


SOME = st.fixed_dictionaries(
    {},
    optional={
        "daemon": st.fixed_dictionaries(
            {},
            optional={
                "socket_mode": st.sampled_from(["0660", "0600"]),
                "log_level": st.sampled_from(["debug", "info"]),
                "ready_level": st.sampled_from(["full", "50%"]),
            },
        ),
        "workers": st.fixed_dictionaries({}, optional={"makers": st.integers(2, 5)}),
        "pools": st.dictionaries(
            st.sampled_from(MAKEABLE),
            st.one_of(
                st.builds(lambda n: {"target": n}, st.integers(0, 500)),
                st.builds(lambda n: {"target": "auto", "max": 5000 + n}, st.integers(0, 500)),
            ),
        ),
        "requests": st.fixed_dictionaries({}, optional={"wait_timeout_s": st.integers(0, 9)}),
        "limits": st.lists(st.builds(lambda n: {**LIMIT, "burst": n}, st.integers(1, 9)), max_size=2),
        "metrics": st.sampled_from([{"listen": ""}, {"listen": "127.0.0.1:1"}]),
    },
)


@given(SOME, SOME)
def test_what_was_reloaded_differs_in_nothing_but_what_waits(before: Any, after: Any) -> None:
    old, wanted = config(**before), config(**after)
    assert compare(old, old) == ((), ())
    found = compare(old, wanted)
    in_force = after_reload(old, wanted)
    assert compare(in_force, wanted) == ((), found.at_a_restart)
    # Put back, nothing waits any more; and a start with the new file has it all.
    assert compare(after_reload(in_force, old), old) == ((), ())
    assert (found == ((), ())) == (old == wanted)
