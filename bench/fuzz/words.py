"""What requests are made of: KMS's members, each with values that pass, and values that pass for none.

The names are from the KMS service model, as in ``core/operations``; a name that is wrong here would only show
in figures (requests that succeed), so those are told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.fuzz.packing import Pairs, Raw

CHEAP_SPEC = "ECC_NIST_EDWARDS25519"
# Aliases, whose keys are in three states where cases run in process; a daemon has the first alone.
ON, OFF, DYING = "alias/kpcache", "alias/off", "alias/dying"

_CONTEXTS: tuple[Any, ...] = (
    {}, {"app": "fuzz"}, {"app": "fuzz", "tenant": "1"}, {"é": ""}, {str(n): "v" for n in range(64)},
)  # fmt: skip
_KEYS = (
    *(ON,) * 12, OFF, DYING, "alias/none", "no such key", "arn:aws:kms:local:000000000000:alias/kpcache",
)  # fmt: skip
_ALGORITHMS = ("SYMMETRIC_DEFAULT", "SYMMETRIC_DEFAULT", "RSAES_OAEP_SHA_256")
_RECIPIENT = {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": b"document"}

_GOOD: Mapping[str, Sequence[Any]] = {
    "KeyId": _KEYS,
    "SourceKeyId": _KEYS,
    "DestinationKeyId": _KEYS,
    "KeyPairSpec": (*(CHEAP_SPEC,) * 8, "RSA_2048", "RSA_4096", "SM2", "ML_KEM_512"),
    "EncryptionContext": _CONTEXTS,
    "SourceEncryptionContext": _CONTEXTS,
    "DestinationEncryptionContext": _CONTEXTS,
    "Plaintext": (b"p", b"plaintext of a fuzzer", bytes(4096)),
    "EncryptionAlgorithm": _ALGORITHMS,
    "SourceEncryptionAlgorithm": _ALGORITHMS,
    "DestinationEncryptionAlgorithm": _ALGORITHMS,
    "GrantTokens": ([], [], [], ["token"], ["t"] * 10),
    "DryRun": (False, False, False, True),
    "DryRunModifiers": ([], ["IGNORE_CIPHERTEXT"]),
    "Recipient": (_RECIPIENT, None, {}),
}

# Values of every kind and size, most of them wrong for any member.
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 127, 128, 2**32, 2**63, -(2**63), 2**64 - 1, 0.0, -0.0, 1e308,
    float("nan"), float("inf"), "", "x", "x" * 31, "x" * 32, "x" * 255, "x" * 256, "x" * 2049,
    "\0\n\x1b[31m", "é" * 200, "\N{PILE OF POO}" * 70, b"", b"\0", bytes(32), bytes(255), bytes(4097),
    bytes(6145), [], [[]], [None] * 11, ["a"] * 256, ["a"] * 257, {}, {"a": "b"}, {"a": 1}, {"a": None},
    {"a": {"b": "c"}}, {"": ""}, [{"a": []}], {str(n): "" for n in range(65)}, {"k": "v" * 8192},
    {"k" * 5000: "v" * 4000}, {1: 2}, {b"k": "v"}, [[[[[]]]]], [[[1]]], {"a": [[1]]},
    ["IGNORE_CIPHERTEXT", "x"], "SYMMETRIC_DEFAULT", "alias/kpcache", "RSA_2048", "arn:x",
    "arn:aws:kms:eu-west-1:000000000000:key/1", "12345678-1234-1234-1234-123456789012",
)  # fmt: skip
# What no value is: only ``packing`` can write these.
UNSPEAKABLE: tuple[Any, ...] = (
    Raw(b"\xc1"), Raw(b"\xd4\x05\x00"), Raw(b"\xd6\xff\x00\x00\x00\x00"), Raw(b"\xc7\x00\x01"),
    Raw(b"\xa1\xff"),
    Raw(b"\xdf\xff\xff\xff\xff"), Raw(b"\xc6\x00\x01\x00\x00"), Raw(b"\xdc\x01"), "\ud800",
    Pairs([("a", "b"), ("a", "c")]), Pairs([("a", "b"), ("é", "c"), ("a", "b")]), Pairs([(None, 1)]),
    Pairs([([], 1)]), [[[[[[1]]]]]], {"a": {"b": {"c": {"d": {"e": 1}}}}}, Raw(b"\xdd\x00\x00\x01\x01"),
    Raw(b"\x91" * 200),
)  # fmt: skip

# Required members, then others that the operation has.
METHODS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "GenerateDataKeyPair": (
        ("KeyId", "KeyPairSpec"),
        ("EncryptionContext", "GrantTokens", "DryRun", "Recipient"),
    ),
    "GenerateDataKeyPairWithoutPlaintext": (
        ("KeyId", "KeyPairSpec"),
        ("EncryptionContext", "GrantTokens", "DryRun"),
    ),
    "Encrypt": (
        ("KeyId", "Plaintext"),
        ("EncryptionContext", "GrantTokens", "EncryptionAlgorithm", "DryRun"),
    ),
    "Decrypt": (
        ("CiphertextBlob",),
        ("EncryptionContext", "KeyId", "EncryptionAlgorithm", "DryRun", "DryRunModifiers", "Recipient"),
    ),
    "ReEncrypt": (
        ("CiphertextBlob", "DestinationKeyId"),
        (
            "SourceEncryptionContext", "SourceKeyId", "DestinationEncryptionContext", "DryRun",
            "SourceEncryptionAlgorithm", "DestinationEncryptionAlgorithm", "DryRunModifiers", "GrantTokens",
        ),
    ),
    "DescribeKey": (("KeyId",), ("GrantTokens",)),
    "kpcache.Ping": ((), ()),
    "kpcache.Status": ((), ()),
}  # fmt: skip
ODD_METHODS = (
    "", "m", "generatedatakeypair", "kpcache.CreateKey", "kpcache.ClearAlarm", "x" * 64, "x" * 65, "\0\n",
    "é" * 64,
    "Recipient", None, 7, b"kpcache.Ping", ["kpcache.Ping"], True,
)  # fmt: skip
OPTIONS: tuple[Any, ...] = (
    None, {}, {"wait_s": 0}, {"wait_s": 0}, {"wait_s": 0.01}, {"wait_s": -1}, {"wait_s": float("nan")},
    {"wait_s": float("inf")}, {"wait_s": 2**64 - 1}, {"wait_s": "1"}, {"wait_s": True}, {"wait": 1}, [], 0,
    "x",
    {"wait_s": 0, "more": 1},
)  # fmt: skip


@dataclass(frozen=True)
class Words:
    """``blobs``: ciphertexts under the first alias, with the empty context."""

    blobs: tuple[bytes, ...]

    def good(self, member: str) -> Sequence[Any]:
        """Values for a member, most of which pass its checks."""
        return self.blobs if member == "CiphertextBlob" else _GOOD[member]
