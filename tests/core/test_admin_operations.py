"""The table of administration where KMS's model says little; against the model: test_kms_model_admin."""

from typing import Any

import pytest

from kpcache.core import contract
from kpcache.core.admin_operations import MAX_DOCUMENT_BYTES
from kpcache.errors import ValidationException

KEY = "alias/kpcache"


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
    assert contract.validate("kpcache.ImportKeyring", {"KeyringDocument": bytes(MAX_DOCUMENT_BYTES)})
    refused: list[tuple[str, dict[str, Any]]] = [
        ("kpcache.ImportKeyring", {"KeyringDocument": bytes(MAX_DOCUMENT_BYTES + 1)}),
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
