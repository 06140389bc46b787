"""Every change of a keyring: which state allows it, what it leaves, and what it never takes away."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import pytest

from kpcache.errors import KpcacheError
from kpcache.keyring import changes, document, names
from kpcache.keyring.document import Document
from tests.keyrings import ALIAS, document_of, record

DAY_S = 86400.0
NOW = 1_700_000_000.0
DUE = NOW + 7 * DAY_S

ENABLED, DISABLED, DYING = record(), record(state="Disabled"), record(state="PendingDeletion", deletion_s=DUE)
RING = dataclasses.replace(
    document_of(ENABLED, DISABLED, DYING), aliases={ALIAS: ENABLED.key_id, "alias/dying": DYING.key_id}
)

Change = Callable[[Document, str], Document]
CHANGES: dict[str, Change] = {
    "enable": changes.enable,
    "disable": changes.disable,
    "schedule": lambda ring, key: changes.schedule_deletion(ring, key, 7, NOW),
    "cancel": changes.cancel_deletion,
    "purge": lambda ring, key: changes.purge(ring, key, DUE),
    "rotate": lambda ring, key: changes.rotate(ring, key, NOW, os.urandom),
    "describe": lambda ring, key: changes.describe_as(ring, key, "for billing"),
    "tag": lambda ring, key: changes.tag(ring, key, {"purpose": "billing"}),
    "untag": lambda ring, key: changes.untag(ring, key, ["purpose"]),
    "alias": lambda ring, key: changes.create_alias(ring, "alias/new", key),
    "move": lambda ring, key: changes.update_alias(ring, ALIAS, key),
}
IS_DISABLED, IS_DYING = (
    ("DisabledException", "is disabled"),
    ("KMSInvalidStateException", "is pending deletion"),
)
NOT_DYING = ("KMSInvalidStateException", "is not pending deletion")
# The state that a change leaves, or how it is refused.
Outcome = str | tuple[str, str] | None
LIFE: dict[str, tuple[Outcome, Outcome, Outcome]] = {
    # change:   on Enabled,        on Disabled,       on PendingDeletion
    "enable": ("Enabled", "Enabled", IS_DYING),
    "disable": ("Disabled", "Disabled", IS_DYING),
    "schedule": ("PendingDeletion", "PendingDeletion", IS_DYING),
    "cancel": (NOT_DYING, NOT_DYING, "Disabled"),
    "purge": (NOT_DYING, NOT_DYING, None),
    "rotate": ("Enabled", IS_DISABLED, IS_DYING),
    "describe": ("Enabled", "Disabled", IS_DYING),
    "tag": ("Enabled", "Disabled", IS_DYING),
    "untag": ("Enabled", "Disabled", IS_DYING),
    "alias": ("Enabled", "Disabled", IS_DYING),
    "move": ("Enabled", "Disabled", IS_DYING),
}


def refusal(change: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(KpcacheError) as caught:
        change()
    return caught.value.code, caught.value.message


@pytest.mark.parametrize("name", LIFE)
@pytest.mark.parametrize("column", range(3), ids=["Enabled", "Disabled", "PendingDeletion"])
def test_each_change_in_each_state(name: str, column: int) -> None:
    key = RING.keys[column]
    outcome = LIFE[name][column]
    if isinstance(outcome, tuple):
        code, message = refusal(lambda: CHANGES[name](RING, key.key_id))
        assert (code, outcome[1] in message) == (outcome[0], True), message
        assert names.key_arn(key.key_id) in message
        return
    after = CHANGES[name](RING, key.key_id)
    assert after.revision == RING.revision + (after.keys != RING.keys or after.aliases != RING.aliases)
    others = [each for each in RING.keys if each is not key]
    assert [each for each in after.keys if each.key_id != key.key_id] == others
    if outcome is None:
        assert key.key_id not in {each.key_id for each in after.keys}
        assert dict(after.aliases) == {ALIAS: ENABLED.key_id}
        return
    changed = changes.find(after, key.key_id)
    assert changed.state == outcome
    assert (changed.deletion_s is not None) is (outcome == "PendingDeletion")
    assert changed.materials[: len(key.materials)] == key.materials
    assert document.decode(document.encode(after)) == after


def test_every_change_is_in_the_table() -> None:
    assert CHANGES.keys() == LIFE.keys()


def test_a_key_is_found_by_each_of_its_four_names_and_by_no_other() -> None:
    arn = f"arn:aws:kms:local:000000000000:key/{ENABLED.key_id}"
    for name in (ENABLED.key_id, arn, ALIAS, f"arn:aws:kms:local:000000000000:{ALIAS}"):
        assert changes.find(RING, name) is ENABLED
    for name in ("", f"key/{ENABLED.key_id}", arn.upper(), arn.replace("key/", ""), ENABLED.key_id[:-1]):
        assert refusal(lambda name=name: changes.find(RING, name))[0] == "NotFoundException", name  # type: ignore[misc]


def test_a_new_key_has_what_was_asked_and_its_own_randomness() -> None:
    drawn: list[bytes] = []

    def urandom(size: int) -> bytes:
        drawn.append(os.urandom(size))
        return drawn[-1]

    after = changes.create_key(RING, description="é", tags={"purpose": "billing"}, now=NOW, urandom=urandom)
    made = after.keys[-1]
    assert (made.state, made.created_s, made.description) == ("Enabled", NOW, "é")
    assert dict(made.tags) == {"purpose": "billing"}
    assert [len(item) for item in drawn] == [16, 32]
    assert made.materials[0].secret == drawn[1]
    assert after.revision == RING.revision + 1
    assert after.keys[:-1] == RING.keys


def test_a_rotation_adds_a_material_that_wraps_and_takes_none_away() -> None:
    ring = RING
    for count in range(2, 6):
        ring = changes.rotate(ring, ALIAS, NOW, os.urandom)
        materials = changes.find(ring, ALIAS).materials
        assert len({material.secret for material in materials}) == count
    assert materials[0] == ENABLED.materials[0]


@pytest.mark.parametrize(("days", "allowed"), [(6, False), (7, True), (30, True), (31, False)])
def test_deletion_waits_from_7_to_30_days(days: int, allowed: bool) -> None:
    if not allowed:
        assert refusal(lambda: changes.schedule_deletion(RING, ALIAS, days, NOW))[0] == "ValidationException"
        return
    after = changes.schedule_deletion(RING, ALIAS, days, NOW)
    assert changes.find(after, ALIAS).deletion_s == NOW + days * DAY_S


@pytest.mark.parametrize("dated", ["the key", "another key", "an earlier material"])
def test_days_are_not_counted_by_a_clock_that_is_behind_any_date_of_the_keyring(dated: str) -> None:
    """They would be over as soon as it is set right. Which date it is, and what to do, is told."""
    key = {"the key": ENABLED, "an earlier material": ENABLED, "another key": DYING}[dated]
    late = dataclasses.replace(key.materials[0], created_s=NOW)
    ring = dataclasses.replace(
        RING,
        keys=tuple(
            dataclasses.replace(each, materials=(late,)) if each is key else each for each in RING.keys
        ),
    )
    if dated == "an earlier material":
        ring = changes.rotate(ring, ALIAS, 5.0, os.urandom)  # under a clock that has begun in 1970
    code, message = refusal(lambda: changes.schedule_deletion(ring, ALIAS, 30, 60.0))
    assert code == "KMSInvalidStateException"
    assert "clock says 1970-01-01 00:01:00+00:00" in message
    assert f"{names.key_arn(key.key_id)} was made or rotated at 2023-11-14 22:13:20+00:00" in message
    assert "set the clock right. If it is right," in message
    changes.schedule_deletion(ring, ALIAS, 30, NOW)


def test_nothing_is_destroyed_before_its_date() -> None:
    code, message = refusal(lambda: changes.purge(RING, DYING.key_id, DUE - 1))
    assert code == "KMSInvalidStateException"
    assert "cannot be destroyed before 2023-11-21 22:13:20+00:00" in message
    assert DYING.key_id not in {key.key_id for key in changes.purge(RING, DYING.key_id, DUE).keys}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda ring: changes.create_alias(ring, ALIAS, DISABLED.key_id), "AlreadyExistsException"),
        (
            lambda ring: changes.create_alias(ring, "alias/aws/x", DISABLED.key_id),
            "InvalidAliasNameException",
        ),
        (lambda ring: changes.create_alias(ring, "billing", DISABLED.key_id), "ValidationException"),
        (
            lambda ring: changes.create_alias(ring, "alias/x\x1b", DISABLED.key_id),
            "InvalidAliasNameException",
        ),
        (lambda ring: changes.create_alias(ring, "alias/x", "nobody"), "NotFoundException"),
        (lambda ring: changes.update_alias(ring, "alias/none", DISABLED.key_id), "NotFoundException"),
        (lambda ring: changes.update_alias(ring, ALIAS, "nobody"), "NotFoundException"),
        (lambda ring: changes.delete_alias(ring, "alias/none"), "NotFoundException"),
        (lambda ring: changes.tag(ring, ALIAS, {"AWS:x": ""}), "TagException"),
        (lambda ring: changes.tag(ring, ALIAS, {str(n): "" for n in range(51)}), "TagException"),
        (lambda ring: changes.mark_exported(ring, 2), "ValidationException"),
        (lambda ring: changes.mark_exported(ring, 0), "ValidationException"),
    ],
)
def test_what_is_refused_has_kmss_code(change: Callable[[Document], Document], code: str) -> None:
    assert refusal(lambda: change(RING))[0] == code


def test_aliases_are_made_moved_and_deleted() -> None:
    ring = changes.create_alias(RING, "alias/new", ENABLED.key_id)
    assert changes.find(ring, "alias/new") is ENABLED
    ring = changes.update_alias(ring, "alias/new", DISABLED.key_id)
    assert changes.find(ring, "alias/new") is DISABLED
    ring = changes.delete_alias(ring, "alias/new")
    assert dict(ring.aliases) == dict(RING.aliases)
    assert ring.revision == RING.revision + 3


def test_tags_are_added_replaced_and_removed() -> None:
    ring = changes.tag(RING, ALIAS, {"a": "1", "b": "2"})
    ring = changes.tag(ring, ALIAS, {"b": "3", "c": "4"})
    assert dict(changes.find(ring, ALIAS).tags) == {"a": "1", "b": "3", "c": "4"}
    assert dict(changes.find(changes.untag(ring, ALIAS, ["a", "none"]), ALIAS).tags) == {"b": "3", "c": "4"}


def test_an_export_is_remembered_by_its_revision_and_is_no_change() -> None:
    ring = changes.rotate(RING, ALIAS, NOW, os.urandom)
    marked = changes.mark_exported(ring, ring.revision)
    assert (marked.revision, marked.exported_revision) == (ring.revision, ring.revision)
    assert changes.mark_exported(marked, 1).exported_revision == ring.revision, "an older one comes late"
