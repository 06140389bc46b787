"""The members of each method of administration, for ``contract``: KMS's own lengths, enums and patterns
(service model 2014-11-01) under KMS's names, and ten methods that only kpcache has.

Only ``daemon/administrator`` answers them. What is known here and not offered is refused there, with
the reason.
"""

from typing import Final

from kpcache.core.limits import MAX_ITEMS
from kpcache.core.operations import Operation
from kpcache.core.shapes import Check, boolean, enum, integer, list_of, matching, sized, structure

# Some 10,000 keys, by what they hold (``keyring/size``).
MAX_KEYRING_BYTES: Final = 4 * 1024 * 1024
# That, and what the states and dates of so many keys can add: what was exported must be taken again. Many
# such inputs may wait for their turn, so it bounds memory too.
MAX_DOCUMENT_BYTES: Final = 5 * 1024 * 1024

_KEY_ID = sized(str, "string", 1, 2048)
_ALIAS_NAME = matching("^[a-zA-Z0-9:/_-]+$", 1, 256)
_DESCRIPTION = sized(str, "string", 0, 8192)
_TAG_KEY = sized(str, "string", 1, 128)
_TAGS = list_of(
    structure({"TagKey": _TAG_KEY, "TagValue": sized(str, "string", 0, 256)}, ("TagKey", "TagValue")),
    MAX_ITEMS,
)
_CUSTOMER_MASTER_KEY_SPECS = (
    "RSA_2048", "RSA_3072", "RSA_4096", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521",
    "ECC_SECG_P256K1", "SYMMETRIC_DEFAULT", "HMAC_224", "HMAC_256", "HMAC_384", "HMAC_512", "SM2",
)  # fmt: skip
_KEY_SPECS = (
    *_CUSTOMER_MASTER_KEY_SPECS,
    "ML_DSA_44", "ML_DSA_65", "ML_DSA_87", "ECC_NIST_EDWARDS25519", "ML_KEM_512", "ML_KEM_768",
    "ML_KEM_1024",
)  # fmt: skip
_KEY_USAGES = (
    "SIGN_VERIFY", "ENCRYPT_DECRYPT", "GENERATE_VERIFY_MAC", "KEY_AGREEMENT", "ENCAPSULATE_DECAPSULATE",
)  # fmt: skip


def _paged(most: int, **members: Check) -> dict[str, Check]:
    """The members of a list; ``most`` that one page may hold is from its page of KMS's API reference."""
    return {**members, "Limit": integer(1, most), "Marker": matching(r"[\u0020-\u00FF]*", 1, 1024)}


_ONE_KEY = Operation({"KeyId": _KEY_ID}, ("KeyId",))
_ALIAS_AND_KEY = Operation({"AliasName": _ALIAS_NAME, "TargetKeyId": _KEY_ID}, ("AliasName", "TargetKeyId"))

ADMIN_OPERATIONS: dict[str, Operation] = {
    "kpcache.CreateKey": Operation(
        {
            "AliasName": _ALIAS_NAME,  # kpcache's own: a key and its alias in one change
            "Description": _DESCRIPTION,
            "Tags": _TAGS,
            "KeySpec": enum(*_KEY_SPECS),
            "CustomerMasterKeySpec": enum(*_CUSTOMER_MASTER_KEY_SPECS),
            "KeyUsage": enum(*_KEY_USAGES),
            "Origin": enum("AWS_KMS", "EXTERNAL", "AWS_CLOUDHSM", "EXTERNAL_KEY_STORE"),
            "MultiRegion": boolean,
            "Policy": sized(str, "string", 1, 131072),
            "BypassPolicyLockoutSafetyCheck": boolean,
            "CustomKeyStoreId": sized(str, "string", 1, 64),
            "XksKeyId": sized(str, "string", 1, 128),
        },
        (),
    ),
    "kpcache.ListKeys": Operation(
        _paged(1000, ResourceOwners=list_of(enum("SELF", "OTHER_ACCOUNTS_VIA_RAM"), 2, minimum=1)), ()
    ),
    "kpcache.ListAliases": Operation(_paged(100, KeyId=_KEY_ID), ()),
    "kpcache.ListKeyRotations": Operation(
        _paged(1000, KeyId=_KEY_ID, IncludeKeyMaterial=enum("ALL_KEY_MATERIAL", "ROTATIONS_ONLY")),
        ("KeyId",),
    ),
    "kpcache.ListResourceTags": Operation(_paged(50, KeyId=_KEY_ID), ("KeyId",)),
    "kpcache.CreateAlias": _ALIAS_AND_KEY,
    "kpcache.UpdateAlias": _ALIAS_AND_KEY,
    "kpcache.DeleteAlias": Operation({"AliasName": _ALIAS_NAME}, ("AliasName",)),
    "kpcache.EnableKey": _ONE_KEY,
    "kpcache.DisableKey": _ONE_KEY,
    "kpcache.UpdateKeyDescription": Operation(
        {"KeyId": _KEY_ID, "Description": _DESCRIPTION}, ("KeyId", "Description")
    ),
    "kpcache.TagResource": Operation({"KeyId": _KEY_ID, "Tags": _TAGS}, ("KeyId", "Tags")),
    "kpcache.UntagResource": Operation(
        {"KeyId": _KEY_ID, "TagKeys": list_of(_TAG_KEY, MAX_ITEMS)}, ("KeyId", "TagKeys")
    ),
    # The model has 1 to 365, its page of the API reference 7 to 30, which is what KMS takes.
    "kpcache.ScheduleKeyDeletion": Operation(
        {"KeyId": _KEY_ID, "PendingWindowInDays": integer(7, 30)}, ("KeyId",)
    ),
    "kpcache.CancelKeyDeletion": _ONE_KEY,
    "kpcache.RotateKeyOnDemand": _ONE_KEY,
    # From here on, kpcache's own.
    "kpcache.PurgeKey": _ONE_KEY,
    "kpcache.ExportKeyring": Operation({}, ()),
    "kpcache.MarkExported": Operation({"Revision": integer(1, 2**63 - 1)}, ("Revision",)),
    "kpcache.ImportKeyring": Operation(
        {"KeyringDocument": sized(bytes, "blob", 1, MAX_DOCUMENT_BYTES)}, ("KeyringDocument",)
    ),
    "kpcache.DescribeAlarm": Operation({}, ()),
    "kpcache.ClearAlarm": Operation({}, ()),
    "kpcache.AcknowledgeLedger": Operation({}, ()),
    "kpcache.Quiesce": Operation({}, ()),
    "kpcache.Resume": Operation({}, ()),
    "kpcache.Reload": Operation({}, ()),
}
"""By the name on the wire. No other method exists on ``admin.sock`` besides those of every client."""
