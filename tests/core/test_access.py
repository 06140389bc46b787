"""The rules of access: they only allow, in any order, and the look-up says what a plain reading says."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.core.access import (
    ALL_OPERATIONS,
    ALL_SPECS,
    NO_SPEC,
    OVERFLOW_ID,
    PAIR_OPERATIONS,
    Asker,
    Rights,
    Rule,
    asker_of,
    rules_for,
    table,
)
from kpcache.core.operations import OPERATIONS
from kpcache.core.specs import MAKEABLE

# What names mean: two keys by id, an alias of each, and names that lead nowhere.
MEANS = {"id-1": "id-1", "id-2": "id-2", "alias/one": "id-1", "alias/two": "id-2"}
NAMES = [*MEANS, "alias/gone", "id-3"]
KEYS = ["id-1", "id-2", "alias/gone", "id-3"]
REQUESTS = [
    (operation, spec)
    for operation in OPERATIONS
    for spec in (MAKEABLE if operation in PAIR_OPERATIONS else (NO_SPEC,))
]

numbers = st.integers(0, 3)


def optional(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | st.frozensets(items, min_size=1, max_size=3)


rules = st.builds(
    Rule,
    uids=optional(numbers),
    gids=optional(numbers),
    operations=st.just(ALL_OPERATIONS) | st.frozensets(st.sampled_from(sorted(ALL_OPERATIONS)), min_size=1),
    specs=st.just(ALL_SPECS) | st.frozensets(st.sampled_from(MAKEABLE[:4]), min_size=1),
    key_ids=optional(st.sampled_from(NAMES)),
)
askers = st.builds(Asker, st.none() | numbers, st.frozensets(numbers, max_size=3))


def decisions(given_rules: Sequence[Rule], asker: Asker) -> set[tuple[str, str, str]]:
    """All that is allowed, by the look-up."""
    rights = Rights(rules_for(tuple(given_rules), asker), MEANS.get)
    return {(*request, key) for request in REQUESTS for key in KEYS if rights.allow(*request, key)}


def plainly(given_rules: Sequence[Rule], asker: Asker) -> set[tuple[str, str, str]]:
    """The same, by reading one rule after the other for each request."""

    def allows(rule: Rule, operation: str, spec: str, key: str) -> bool:
        if rule.uids is not None and (asker.uid is None or asker.uid not in rule.uids):
            return False
        if rule.gids is not None and (asker.uid is None or not rule.gids & asker.gids):
            return False
        if operation not in rule.operations or (spec and spec not in rule.specs):
            return False
        return rule.key_ids is None or any(MEANS.get(name, name) == key for name in rule.key_ids)

    return {
        (*request, key)
        for request in REQUESTS
        for key in KEYS
        if any(allows(rule, *request, key) for rule in given_rules)
    }


@given(st.lists(rules, max_size=5), askers)
def test_the_look_up_says_what_a_plain_reading_says(given_rules: list[Rule], asker: Asker) -> None:
    assert decisions(given_rules, asker) == plainly(given_rules, asker)


@given(
    st.lists(rules, max_size=5).flatmap(lambda each: st.tuples(st.just(each), st.permutations(each))), askers
)
def test_the_order_of_rules_means_nothing(orders: tuple[list[Rule], list[Rule]], asker: Asker) -> None:
    one, other = orders
    assert decisions(one, asker) == decisions(other, asker)
    assert rows_as_set(one, asker) == rows_as_set(other, asker)


@given(st.lists(rules, max_size=4), rules, st.integers(0, 4), askers)
def test_one_more_rule_takes_no_right_away(
    given_rules: list[Rule], more: Rule, place: int, asker: Asker
) -> None:
    longer = [*given_rules[:place], more, *given_rules[place:]]
    assert decisions(given_rules, asker) <= decisions(longer, asker)


@given(st.lists(rules, max_size=5), st.frozensets(numbers, max_size=3))
def test_whoever_is_unknown_has_only_the_rules_for_everybody(
    given_rules: list[Rule], gids: frozenset[int]
) -> None:
    everybody = [rule for rule in given_rules if rule.uids is None and rule.gids is None]
    expected = decisions(everybody, Asker(1, gids))
    for uid, pid in ((OVERFLOW_ID, 7), (1, 0), (0, 0)):
        assert decisions(given_rules, asker_of(uid, pid, gids)) == expected


def test_nobodys_number_is_not_an_identity_even_where_a_rule_had_it() -> None:
    rule = Rule(uids=frozenset({OVERFLOW_ID, 0}))
    assert not rules_for((rule,), asker_of(OVERFLOW_ID, 7, frozenset()))
    assert rules_for((rule,), asker_of(0, 7, frozenset()))


def test_root_needs_a_rule_too() -> None:
    assert not decisions([Rule(uids=frozenset({1}))], Asker(0, frozenset({0})))


def test_users_and_groups_in_one_rule_narrow_each_other() -> None:
    rule = Rule(uids=frozenset({1}), gids=frozenset({2}))
    allowed = [rule.is_for(Asker(*asker)) for asker in (
        (1, frozenset({2, 3})), (1, frozenset({3})), (3, frozenset({2})),
    )]  # fmt: skip
    assert allowed == [True, False, False]


def rows_as_set(given_rules: Sequence[Rule], asker: Asker) -> set[tuple[str, str, str]]:
    """What ``table`` shows, spelled out."""
    shown = set()
    for row in table(rules_for(tuple(given_rules), asker)):
        specs = row.get("Specs", [NO_SPEC])
        for spec in MAKEABLE if specs == "*" else specs:
            for name in NAMES if row["KeyIds"] == "*" else row["KeyIds"]:
                shown.add((row["Operation"], spec, MEANS.get(name, name)))
    return shown


@given(st.lists(rules, max_size=5), askers)
def test_what_is_shown_is_what_is_allowed(given_rules: list[Rule], asker: Asker) -> None:
    assert rows_as_set(given_rules, asker) == decisions(given_rules, asker)


def test_what_is_shown_is_short_where_all_is_allowed() -> None:
    rows = table((Rule(), Rule(specs=frozenset({"RSA_2048"}), key_ids=frozenset({"alias/one"}))))
    assert rows == [
        {"Operation": operation, **({"Specs": "*"} if operation in PAIR_OPERATIONS else {}), "KeyIds": "*"}
        for operation in OPERATIONS
    ]


def test_names_of_two_rules_add_up_for_each_spec() -> None:
    pair = frozenset({"GenerateDataKeyPair"})
    rows = table(
        (
            Rule(
                operations=pair, specs=frozenset({"RSA_2048", "RSA_3072"}), key_ids=frozenset({"alias/one"})
            ),
            Rule(operations=pair, specs=frozenset({"RSA_3072"}), key_ids=frozenset({"alias/two"})),
        )
    )
    assert rows == [
        {"Operation": "GenerateDataKeyPair", "Specs": ["RSA_2048"], "KeyIds": ["alias/one"]},
        {"Operation": "GenerateDataKeyPair", "Specs": ["RSA_3072"], "KeyIds": ["alias/one", "alias/two"]},
    ]


@pytest.mark.parametrize("means", [{"alias/one": "id-2"}.get, {}.get])
def test_an_alias_that_means_another_key_takes_its_right_along(means: Callable[[str], str | None]) -> None:
    rule = Rule(operations=frozenset({"Decrypt"}), key_ids=frozenset({"alias/one"}))
    before, after = Rights((rule,), MEANS.get), Rights((rule,), means)
    assert [before.allow("Decrypt", NO_SPEC, key) for key in ("id-1", "id-2")] == [True, False]
    assert [after.allow("Decrypt", NO_SPEC, key) for key in ("id-1", "id-2")] == [
        False,
        bool(means("alias/one")),
    ]
