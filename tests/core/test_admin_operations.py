"""The table of administration against KMS's own service model: members, what is required, every bound."""

from typing import Any

import botocore.session
import pytest

from kpcache.core import contract
from kpcache.core.admin_operations import ADMIN_OPERATIONS, MAX_KEYRING_BYTES
from kpcache.errors import ValidationException

MODEL = botocore.session.get_session().get_service_model("kms")
KMS = [name for name in ADMIN_OPERATIONS if name.removeprefix("kpcache.") in MODEL.operation_names]
OWN = {"kpcache.PurgeKey", "kpcache.ExportKeyring", "kpcache.MarkExported", "kpcache.ImportKeyring"}
# Bounds other than the model's, and who sets them.
OTHER_BOUNDS = {
    ("kpcache.ScheduleKeyDeletion", "PendingWindowInDays"): (7, 30),  # its page of KMS's API reference
    ("kpcache.ListAliases", "Limit"): (1, 100),  # the same
    ("kpcache.ListResourceTags", "Limit"): (1, 50),  # the same
}
KEY = "alias/kpcache"


def shape_of(method: str) -> Any:
    return MODEL.operation_model(method.removeprefix("kpcache.")).input_shape


def test_all_methods_are_those_of_kms_but_four() -> None:
    assert set(ADMIN_OPERATIONS) - set(KMS) == OWN
    assert all(name.startswith("kpcache.") for name in ADMIN_OPERATIONS)


@pytest.mark.parametrize("method", KMS)
def test_members_and_what_is_required_are_those_of_the_model(method: str) -> None:
    operation, shape = ADMIN_OPERATIONS[method], shape_of(method)
    own = {"AliasName"} if method == "kpcache.CreateKey" else set()
    assert set(operation.checks) == set(shape.members) | own
    assert set(operation.required) == set(shape.required_members)


MEMBERS = [(method, name) for method in KMS for name in shape_of(method).members]


@pytest.mark.parametrize(("method", "name"), MEMBERS, ids=["-".join(pair) for pair in MEMBERS])
def test_bounds_and_enums_are_those_of_the_model(method: str, name: str) -> None:
    member = shape_of(method).members[name]
    check = ADMIN_OPERATIONS[method].checks[name]
    least, most = OTHER_BOUNDS.get(
        (method, name), (member.metadata.get("min", 0), member.metadata.get("max", 0))
    )
    if member.type_name == "integer":
        bad: list[object] = [least - 1, most + 1, str(least), float(least), True, None]
        good: list[object] = [least, most]
    elif member.type_name == "boolean":
        good, bad = [True, False], [0, "true", None]
    elif member.type_name == "string" and member.enum:
        good, bad = list(member.enum), ["", "NONE", member.enum[0].lower(), 1, None]
    elif member.type_name == "string":
        good, bad = ["a" * least, "a" * most], ["a" * (most + 1), b"a", 1, None]
        bad += [""] if least else []
    else:
        assert member.type_name == "list"
        good, bad = [[]], [{}, "", None, [1], [None]]
    assert [value for value in good if check(value)] == []
    assert [value for value in bad if not check(value)] == []


@pytest.mark.parametrize(
    ("tags", "told"),
    [
        ([{"TagKey": "k" * 128, "TagValue": "v" * 256}], ""),
        ([{"TagKey": "k", "TagValue": ""}], ""),
        ([{"TagKey": "k"}], "'tags.1.member.tagValue'"),
        ([{"TagKey": "k", "TagValue": None}], "'tags.1.member.tagValue'"),
        ([{"TagKey": "", "TagValue": "v"}], "'tags.1.member.tagKey'"),
        ([{"TagKey": "k" * 129, "TagValue": "v"}], "less than or equal to 128"),
        ([{"TagKey": "k", "TagValue": "v" * 257}], "less than or equal to 256"),
        ([{"TagKey": "k", "TagValue": "v", "Tag": "x"}], "no members but"),
        ([["k", "v"]], "must be a structure"),
    ],
)
def test_tags_have_the_shape_of_the_model(tags: object, told: str) -> None:
    data = {"KeyId": KEY, "Tags": tags}
    if not told:
        assert contract.validate("kpcache.TagResource", data) is data
        return
    with pytest.raises(ValidationException) as caught:
        contract.validate("kpcache.TagResource", data)
    assert told in caught.value.message


@pytest.mark.parametrize("name", ["alias/ü", "alias/a b", "alias/a\n", "", "a" * 257, b"alias/a", 1])
def test_an_alias_name_has_kms_characters(name: object) -> None:
    with pytest.raises(ValidationException):
        contract.validate("kpcache.DeleteAlias", {"AliasName": name})


def test_what_is_kpcache_s_own_has_its_bounds() -> None:
    assert contract.validate("kpcache.ExportKeyring", {}) == {}
    assert contract.validate("kpcache.ImportKeyring", {"KeyringDocument": bytes(MAX_KEYRING_BYTES)})
    refused: list[tuple[str, dict[str, Any]]] = [
        ("kpcache.ImportKeyring", {"KeyringDocument": bytes(MAX_KEYRING_BYTES + 1)}),
        ("kpcache.ImportKeyring", {"KeyringDocument": "text"}),
        ("kpcache.ImportKeyring", {}),
        ("kpcache.ExportKeyring", {"KeyId": KEY}),
        ("kpcache.MarkExported", {"Revision": 0}),
        ("kpcache.MarkExported", {"Revision": 1.0}),
        ("kpcache.MarkExported", {}),
        ("kpcache.PurgeKey", {}),
    ]
    for method, data in refused:
        with pytest.raises(ValidationException):
            contract.validate(method, data)
