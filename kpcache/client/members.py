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


class EncryptMembers(TypedDict):
    """``Plaintext``: 1 to 4096 bytes."""

    KeyId: str
    Plaintext: bytes
    EncryptionContext: NotRequired[Mapping[str, str]]
    GrantTokens: NotRequired[Sequence[str]]
    EncryptionAlgorithm: NotRequired[str]
    DryRun: NotRequired[bool]


class DecryptMembers(TypedDict):
    """``CiphertextBlob``: at most 6144 bytes; ``EncryptionContext``: exactly the one it was made with.

    Without a blob, with ``DryRun`` and ``DryRunModifiers=["IGNORE_CIPHERTEXT"]``, only ``KeyId`` is tried.
    """

    CiphertextBlob: NotRequired[bytes]
    EncryptionContext: NotRequired[Mapping[str, str]]
    GrantTokens: NotRequired[Sequence[str]]
    KeyId: NotRequired[str]
    EncryptionAlgorithm: NotRequired[str]
    Recipient: NotRequired[Mapping[str, Any]]
    DryRun: NotRequired[bool]
    DryRunModifiers: NotRequired[Sequence[str]]


class ReEncryptMembers(TypedDict):
    """As ``DecryptMembers`` for the source and ``EncryptMembers`` for the destination."""

    CiphertextBlob: NotRequired[bytes]
    SourceEncryptionContext: NotRequired[Mapping[str, str]]
    SourceKeyId: NotRequired[str]
    DestinationKeyId: str
    DestinationEncryptionContext: NotRequired[Mapping[str, str]]
    SourceEncryptionAlgorithm: NotRequired[str]
    DestinationEncryptionAlgorithm: NotRequired[str]
    GrantTokens: NotRequired[Sequence[str]]
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


class Encrypted(TypedDict):
    """``KeyId`` is the key's ARN. KMS tells no ``KeyMaterialId`` here."""

    CiphertextBlob: bytes
    KeyId: str
    EncryptionAlgorithm: str


class ReEncrypted(TypedDict):
    """``SourceKeyId`` and ``KeyId`` (the destination's) are ARNs."""

    CiphertextBlob: bytes
    SourceKeyId: str
    KeyId: str
    SourceEncryptionAlgorithm: str
    DestinationEncryptionAlgorithm: str
    SourceKeyMaterialId: str
    DestinationKeyMaterialId: str


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


class Identified(TypedDict):
    """``Groups`` has the primary group too. ``Allowed`` has rows of ``Operation``, ``Specs`` (where pairs are
    given out) and ``KeyIds``, each a list or "*". ``Note``: what keeps rules from being applied, or empty."""

    Uid: int
    Gid: int
    Groups: list[int]
    Pid: int
    Administrator: bool
    RulesInForce: bool
    Allowed: list[dict[str, Any]]
    Note: str
