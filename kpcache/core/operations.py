"""The members of each operation: one table, from the KMS service model 2014-11-01, for ``contract``."""

from collections.abc import Mapping
from dataclasses import dataclass

from kpcache.core.envelope import MAX_BLOB_BYTES
from kpcache.core.shapes import Check, boolean, context, enum, list_of, sized, structure
from kpcache.core.specs import SPECS


@dataclass(frozen=True, slots=True)
class Operation:
    """The input of one operation. A member that is not required may be absent or nil."""

    checks: Mapping[str, Check]
    required: tuple[str, ...]


_KEY_ID = sized(str, "string", 1, 2048)
_GRANT_TOKENS = list_of(sized(str, "string", 1, 8192), 10)
_PAIR_MEMBERS: dict[str, Check] = {
    "KeyId": _KEY_ID,
    "KeyPairSpec": enum(*SPECS),
    "EncryptionContext": context,
    "GrantTokens": _GRANT_TOKENS,
    "DryRun": boolean,
}
_DECRYPT_MEMBERS: dict[str, Check] = {
    "CiphertextBlob": sized(bytes, "blob", 1, MAX_BLOB_BYTES),
    "EncryptionContext": context,
    "GrantTokens": _GRANT_TOKENS,
    "KeyId": _KEY_ID,
    "EncryptionAlgorithm": enum("SYMMETRIC_DEFAULT", "RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "SM2PKE"),
    "Recipient": structure,  # always refused, by refuse_unoffered, so its members need no look
    "DryRun": boolean,
    "DryRunModifiers": list_of(enum("IGNORE_CIPHERTEXT"), 1),
}

OPERATIONS: dict[str, Operation] = {
    "GenerateDataKeyPair": Operation({**_PAIR_MEMBERS, "Recipient": structure}, ("KeyId", "KeyPairSpec")),
    "GenerateDataKeyPairWithoutPlaintext": Operation(_PAIR_MEMBERS, ("KeyId", "KeyPairSpec")),
    # KMS does without the blob for DryRun with IGNORE_CIPHERTEXT, which is not offered here.
    "Decrypt": Operation(_DECRYPT_MEMBERS, ("CiphertextBlob",)),
    "DescribeKey": Operation({"KeyId": _KEY_ID, "GrantTokens": _GRANT_TOKENS}, ("KeyId",)),
}
