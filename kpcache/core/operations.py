"""The members of each operation: one table, from the KMS service model 2014-11-01, for ``contract``."""

from collections.abc import Mapping
from dataclasses import dataclass

from kpcache.core.envelope import MAX_BLOB_BYTES, MAX_PLAINTEXT_BYTES
from kpcache.core.shapes import Check, boolean, context, enum, list_of, sized, structure
from kpcache.core.specs import SPECS


@dataclass(frozen=True, slots=True)
class Operation:
    """The input of one operation. A member that is not required may be absent or nil."""

    checks: Mapping[str, Check]
    required: tuple[str, ...]


_KEY_ID = sized(str, "string", 1, 2048)
_GRANT_TOKENS = list_of(sized(str, "string", 1, 8192), 10)
_BLOB = sized(bytes, "blob", 1, MAX_BLOB_BYTES)
_ALGORITHM = enum("SYMMETRIC_DEFAULT", "RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "SM2PKE")
# A document of the largest size does not fit a message of the default size; the shape is KMS's all the same.
_RECIPIENT = structure(
    {
        "KeyEncryptionAlgorithm": enum("RSAES_OAEP_SHA_256"),
        "AttestationDocument": sized(bytes, "blob", 1, 262144),
    }
)
_DRY_RUN_MODIFIERS = list_of(enum("IGNORE_CIPHERTEXT"))
_PAIR_MEMBERS: dict[str, Check] = {
    "KeyId": _KEY_ID,
    "KeyPairSpec": enum(*SPECS),
    "EncryptionContext": context,
    "GrantTokens": _GRANT_TOKENS,
    "DryRun": boolean,
}

OPERATIONS: dict[str, Operation] = {
    "GenerateDataKeyPair": Operation({**_PAIR_MEMBERS, "Recipient": _RECIPIENT}, ("KeyId", "KeyPairSpec")),
    "GenerateDataKeyPairWithoutPlaintext": Operation(_PAIR_MEMBERS, ("KeyId", "KeyPairSpec")),
    "Encrypt": Operation(
        {
            "KeyId": _KEY_ID,
            "Plaintext": sized(bytes, "blob", 1, MAX_PLAINTEXT_BYTES),
            "EncryptionContext": context,
            "GrantTokens": _GRANT_TOKENS,
            "EncryptionAlgorithm": _ALGORITHM,
            "DryRun": boolean,
        },
        ("KeyId", "Plaintext"),
    ),
    # What Decrypt and ReEncrypt require depends on DryRunModifiers: contract.ignores_ciphertext.
    "Decrypt": Operation(
        {
            "CiphertextBlob": _BLOB,
            "EncryptionContext": context,
            "GrantTokens": _GRANT_TOKENS,
            "KeyId": _KEY_ID,
            "EncryptionAlgorithm": _ALGORITHM,
            "Recipient": _RECIPIENT,
            "DryRun": boolean,
            "DryRunModifiers": _DRY_RUN_MODIFIERS,
        },
        (),
    ),
    "ReEncrypt": Operation(
        {
            "CiphertextBlob": _BLOB,
            "SourceEncryptionContext": context,
            "SourceKeyId": _KEY_ID,
            "DestinationKeyId": _KEY_ID,
            "DestinationEncryptionContext": context,
            "SourceEncryptionAlgorithm": _ALGORITHM,
            "DestinationEncryptionAlgorithm": _ALGORITHM,
            "GrantTokens": _GRANT_TOKENS,
            "DryRun": boolean,
            "DryRunModifiers": _DRY_RUN_MODIFIERS,
        },
        ("DestinationKeyId",),
    ),
    "DescribeKey": Operation({"KeyId": _KEY_ID, "GrantTokens": _GRANT_TOKENS}, ("KeyId",)),
}
