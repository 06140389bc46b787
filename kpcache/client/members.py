"""What goes into each operation and what comes out: KMS's member names and boto3's shapes.

Service model 2014-11-01. Blobs are bytes. Members that kpcache refuses (``Recipient``, non-empty
``GrantTokens``) are here too, so that code written for boto3 type-checks and is told why at run time.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict


class DataKeyPairMembers(TypedDict):
    """``KeyId``: uuid, key ARN, ``alias/NAME`` or alias ARN. ``KeyPairSpec``: ``RSA_2048`` and so on."""

    KeyId: str
    KeyPairSpec: str
    EncryptionContext: NotRequired[Mapping[str, str]]
    GrantTokens: NotRequired[Sequence[str]]
    Recipient: NotRequired[Mapping[str, Any]]
    DryRun: NotRequired[bool]


class DecryptMembers(TypedDict):
    """``CiphertextBlob``: at most 6144 bytes; ``EncryptionContext``: exactly the one it was made with."""

    CiphertextBlob: bytes
    EncryptionContext: NotRequired[Mapping[str, str]]
    GrantTokens: NotRequired[Sequence[str]]
    KeyId: NotRequired[str]
    EncryptionAlgorithm: NotRequired[str]
    Recipient: NotRequired[Mapping[str, Any]]
    DryRun: NotRequired[bool]
    DryRunModifiers: NotRequired[Sequence[str]]


class DescribeKeyMembers(TypedDict):
    KeyId: str
    GrantTokens: NotRequired[Sequence[str]]


class DataKeyPairWithoutPlaintext(TypedDict):
    """``PublicKey`` is DER SubjectPublicKeyInfo; ``KeyId`` the key's ARN, whatever form was asked with."""

    PrivateKeyCiphertextBlob: bytes
    PublicKey: bytes
    KeyId: str
    KeyPairSpec: str
    KeyMaterialId: str


class DataKeyPair(DataKeyPairWithoutPlaintext):
    """``PrivateKeyPlaintext`` is DER PKCS#8 (ML-KEM: in seed form)."""

    PrivateKeyPlaintext: bytes


class Decrypted(TypedDict):
    KeyId: str
    Plaintext: bytes
    EncryptionAlgorithm: str
    KeyMaterialId: str


class KeyDescription(TypedDict):
    KeyMetadata: dict[str, Any]


class Pong(TypedDict):
    ProtocolVersion: int
    Version: str
    MaxMessageBytes: int
    MaxInFlight: int
    MaxWaitSeconds: float
