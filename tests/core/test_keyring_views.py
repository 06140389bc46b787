"""What is shown of a keyring: KMS's shapes, and no secret in any of them."""

import base64
import dataclasses
import os
from typing import Any

import botocore.session
import pytest

from kpcache.keyring import changes, views
from tests.keyrings import ALIAS, document_of, record

KEY = dataclasses.replace(
    record(materials=3, state="PendingDeletion", deletion_s=9.5), tags={"b": "2", "a": "1"}, description="é"
)
RING = dataclasses.replace(
    document_of(KEY, other := record()), aliases={ALIAS: KEY.key_id, "alias/other": other.key_id}
)
SHOWN: dict[str, Any] = {
    "KeyMetadata": views.key_metadata(KEY),
    "KeyListEntry": views.list_keys(RING)[0],
    "AliasListEntry": views.list_aliases(RING)[0],
    "RotationsListEntry": views.list_rotations(KEY, all_material=True)[1],
    "Tag": views.list_tags(KEY)[0],
}


@pytest.mark.parametrize("shape", SHOWN)
def test_members_are_those_of_kms_with_its_types_and_enums(shape: str) -> None:
    model = botocore.session.get_session().get_service_model("kms").shape_for(shape)
    types = {"string": str, "boolean": bool, "timestamp": float, "list": list}
    for name, value in SHOWN[shape].items():
        member = model.members[name]
        assert type(value) is types[member.type_name], name
        for each in value if isinstance(value, list) else [value]:
            shape_of = member.member if isinstance(value, list) else member
            assert each in (getattr(shape_of, "enum", None) or [each]), name


def test_metadata_follows_the_record() -> None:
    metadata = SHOWN["KeyMetadata"]
    assert metadata["Arn"] == f"arn:aws:kms:local:000000000000:key/{KEY.key_id}"
    assert (metadata["KeyState"], metadata["Enabled"], metadata["DeletionDate"]) == (
        "PendingDeletion",
        False,
        9.5,
    )
    assert metadata["CurrentKeyMaterialId"] == KEY.materials[2].material_id
    assert "DeletionDate" not in views.key_metadata(other)


def test_aliases_come_by_name_and_of_one_key_where_asked() -> None:
    assert [each["AliasName"] for each in views.list_aliases(RING)] == [ALIAS, "alias/other"]
    assert [each["TargetKeyId"] for each in views.list_aliases(RING, other.key_id)] == [other.key_id]


def test_rotations_are_those_since_the_key_was_made_unless_all_material_is_asked_for() -> None:
    rotations, materials = (views.list_rotations(KEY, all_material=each) for each in (False, True))
    assert [each["KeyMaterialId"] for each in materials] == [each.material_id for each in KEY.materials]
    assert [each["KeyMaterialState"] for each in materials] == ["NON_CURRENT", "NON_CURRENT", "CURRENT"]
    assert rotations == materials[1:]
    assert "RotationDate" not in materials[0]


def test_status_counts_the_changes_that_no_export_has() -> None:
    ring = changes.rotate(document_of(other), ALIAS, 1.0, os.urandom)
    assert views.keyring_status(ring) == {
        "keys": 1, "revision": 2, "exported_revision": 0, "unexported_changes": 2
    }  # fmt: skip
    assert views.keyring_status(changes.mark_exported(ring, 2))["unexported_changes"] == 0


def test_nothing_shown_holds_a_secret() -> None:
    told = repr(SHOWN)
    for material in KEY.materials:
        for form in (
            base64.b64encode(material.secret).decode(),
            material.secret.hex(),
            repr(material.secret),
        ):
            assert form not in told
