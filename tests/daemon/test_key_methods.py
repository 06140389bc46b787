"""The methods without a pair, over a real keyring: answers, refusals, and which comes first."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import pytest

from kpcache.core.wire import Request
from kpcache.daemon.access import NOBODY, Access
from kpcache.daemon.fence import Fence
from kpcache.daemon.key_methods import KeyMethods
from kpcache.errors import KpcacheError
from kpcache.keyring import Keyring
from kpcache.keyring.document import Document
from tests.fakes import FakeSource
from tests.keyrings import record

KEYS = {f"alias/{name}": record(2) for name in ("on", "other", "off", "dying")}
STATES = {"alias/off": "Disabled", "alias/dying": "PendingDeletion"}
CONTEXT = {"app": "billing", "é": ""}
PRIVATE = b"the private key"
MALFORMED_ARN = "arn:aws:s3:::bucket"
ASYMMETRIC = "RSAES_OAEP_SHA_256"
GRANTS = {"GrantTokens": ["token"]}
IGNORE = {"DryRun": True, "DryRunModifiers": ["IGNORE_CIPHERTEXT"]}


def content(states: dict[str, str]) -> Document:
    records = (
        dataclasses.replace(each, state=states.get(alias, "Enabled"), deletion_s=None)
        for alias, each in KEYS.items()
    )
    return Document(tuple(records), {alias: each.key_id for alias, each in KEYS.items()}, 1, 0)


RING = Keyring(content({}))
BLOB = {alias: RING.encrypt(RING.resolve(alias), PRIVATE, CONTEXT).blob for alias in KEYS}
RING.adopt(content(STATES))
METHODS = KeyMethods(RING, Fence(FakeSource()), Access(RING)).by_name
ARN = {alias: RING.resolve(alias).arn for alias in KEYS}

ENCRYPT: dict[str, Any] = {"KeyId": "alias/on", "Plaintext": PRIVATE, "EncryptionContext": CONTEXT}
DECRYPT: dict[str, Any] = {"CiphertextBlob": BLOB["alias/on"], "EncryptionContext": CONTEXT}
RE_ENCRYPT: dict[str, Any] = {
    "CiphertextBlob": BLOB["alias/on"],
    "SourceEncryptionContext": CONTEXT,
    "DestinationKeyId": "alias/other",
}
# Of each method: an input that succeeds.
GOOD = {
    "Encrypt": ENCRYPT,
    "Decrypt": DECRYPT,
    "ReEncrypt": RE_ENCRYPT,
    "DescribeKey": {"KeyId": "alias/on"},
}


def call(method: str, data: dict[str, Any], options: object = None) -> dict[str, Any]:
    return METHODS[method](Request(1, method, dict(data), options), NOBODY)


def refusal(method: str, data: dict[str, Any], options: object = None) -> KpcacheError:
    with pytest.raises(KpcacheError) as caught:
        call(method, data, options)
    return caught.value


# --- answers


def test_encrypt_answers_as_kms_without_the_material_and_under_the_current_one() -> None:
    answer = call("Encrypt", {**ENCRYPT, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT", "DryRun": False})
    blob = answer.pop("CiphertextBlob")
    assert answer == {"KeyId": ARN["alias/on"], "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}
    opened = RING.decrypt(blob, CONTEXT)
    assert (opened.plaintext, opened.material_id) == (PRIVATE, KEYS["alias/on"].materials[-1].material_id)
    assert call("Encrypt", ENCRYPT)["CiphertextBlob"] != blob


def test_decrypt_answers_as_kms() -> None:
    expected = {
        "KeyId": ARN["alias/on"],
        "Plaintext": PRIVATE,
        "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        "KeyMaterialId": KEYS["alias/on"].materials[-1].material_id,
    }
    named: dict[str, Any]
    for named in ({}, {"KeyId": "alias/on"}, {"KeyId": ARN["alias/on"]}, {"GrantTokens": []}):
        assert call("Decrypt", {**DECRYPT, **named}) == expected


@pytest.mark.parametrize("target", ["alias/other", "alias/on"])
def test_re_encrypt_moves_a_blob_to_another_key_and_context_without_showing_what_is_in_it(
    target: str,
) -> None:
    moved = {"of": "another"}
    answer = call(
        "ReEncrypt", {**RE_ENCRYPT, "DestinationKeyId": target, "DestinationEncryptionContext": moved}
    )
    assert PRIVATE not in b"".join(value for value in answer.values() if isinstance(value, bytes))
    blob = answer.pop("CiphertextBlob")
    assert answer == {
        "SourceKeyId": ARN["alias/on"],
        "KeyId": ARN[target],
        "SourceEncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        "DestinationEncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        "SourceKeyMaterialId": KEYS["alias/on"].materials[-1].material_id,
        "DestinationKeyMaterialId": KEYS[target].materials[-1].material_id,
    }
    opened = call("Decrypt", {"CiphertextBlob": blob, "EncryptionContext": moved})
    assert (opened["Plaintext"], opened["KeyId"]) == (PRIVATE, ARN[target])
    assert refusal("Decrypt", {"CiphertextBlob": blob, "EncryptionContext": CONTEXT}).message == ""


def test_describe_key_tells_of_a_key_in_any_state() -> None:
    for alias, state in {"alias/on": "Enabled", **STATES}.items():
        metadata = call("DescribeKey", {"KeyId": alias})["KeyMetadata"]
        assert (metadata["Arn"], metadata["KeyState"]) == (ARN[alias], state)


# --- refusals: each row has one fault; the code, and where it is recorded the message

INCORRECT_KEY = "The key ID in the request does not identify a CMK that can perform this operation."
WRONG_ALGORITHM = f"Algorithm {ASYMMETRIC} is incompatible with key spec SYMMETRIC_DEFAULT."
OF_SOURCE = {"Decrypt": "KeyId", "ReEncrypt": "SourceKeyId"}
FAULTS: list[tuple[str, dict[str, Any], str, str | None]] = [
    ("Encrypt", {"Plaintext": b""}, "ValidationException", None),
    ("Encrypt", GRANTS, "InvalidGrantTokenException", None),
    ("Encrypt", {"KeyId": MALFORMED_ARN}, "NotFoundException", f"Invalid keyId '{MALFORMED_ARN}'"),
    ("Encrypt", {"EncryptionAlgorithm": ASYMMETRIC}, "InvalidKeyUsageException", WRONG_ALGORITHM),
    ("Encrypt", {"KeyId": "alias/off"}, "DisabledException", f"{ARN['alias/off']} is disabled."),
    (
        *("Encrypt", {"KeyId": "alias/dying"}, "KMSInvalidStateException"),
        f"{ARN['alias/dying']} is pending deletion.",
    ),
    ("Encrypt", {"DryRun": True}, "DryRunOperationException", None),
    ("Decrypt", {"EncryptionAlgorithm": ASYMMETRIC}, "InvalidKeyUsageException", WRONG_ALGORITHM),
    ("Decrypt", {"Recipient": {}}, "UnsupportedOperationException", None),
    ("ReEncrypt", {"Recipient": {}}, "ValidationException", None),
    ("ReEncrypt", {"SourceEncryptionAlgorithm": ASYMMETRIC}, "InvalidKeyUsageException", WRONG_ALGORITHM),
    ("ReEncrypt", {"DestinationEncryptionAlgorithm": "SM2PKE"}, "InvalidKeyUsageException", None),
    ("ReEncrypt", {"DestinationKeyId": "nowhere"}, "NotFoundException", "Invalid keyId 'nowhere'"),
    ("ReEncrypt", {"DestinationKeyId": MALFORMED_ARN}, "NotFoundException", None),
    ("ReEncrypt", {"DestinationKeyId": "alias/off"}, "DisabledException", None),
    ("ReEncrypt", {"DestinationKeyId": "alias/dying"}, "KMSInvalidStateException", None),
    ("DescribeKey", GRANTS, "InvalidGrantTokenException", None),
    ("DescribeKey", {"KeyId": "nowhere"}, "NotFoundException", None),
    ("DescribeKey", {"KeyId": MALFORMED_ARN}, "InvalidArnException", None),
    ("DescribeKey", {"DryRun": True}, "ValidationException", None),
]
for _method, _member in OF_SOURCE.items():
    _context = "EncryptionContext" if _method == "Decrypt" else "SourceEncryptionContext"
    FAULTS += [
        (_method, {"CiphertextBlob": None}, "ValidationException", None),
        (_method, {"DryRunModifiers": ["IGNORE_CIPHERTEXT"]}, "ValidationException", None),
        (_method, GRANTS, "InvalidGrantTokenException", None),
        (_method, {_member: "nowhere"}, "NotFoundException", "Invalid keyId 'nowhere'"),
        (_method, {_member: MALFORMED_ARN}, "NotFoundException", None),
        (_method, {"CiphertextBlob": b"no blob"}, "InvalidCiphertextException", ""),
        (_method, {_context: {}}, "InvalidCiphertextException", ""),
        (_method, {"CiphertextBlob": BLOB["alias/off"]}, "DisabledException", None),
        (_method, {"CiphertextBlob": BLOB["alias/dying"]}, "KMSInvalidStateException", None),
        (_method, {_member: "alias/other"}, "IncorrectKeyException", INCORRECT_KEY),
        (_method, {_member: "alias/off"}, "IncorrectKeyException", INCORRECT_KEY),
        (_method, {"DryRun": True}, "DryRunOperationException", None),
        # The modifier: the blob and its context are not looked at, the named key is.
        (_method, {**IGNORE, "CiphertextBlob": None}, "ValidationException", None),
        (_method, {**IGNORE, "CiphertextBlob": None, _member: "nowhere"}, "NotFoundException", None),
        (_method, {**IGNORE, "CiphertextBlob": None, _member: "alias/off"}, "DisabledException", None),
        (_method, {**IGNORE, "CiphertextBlob": None, _member: "alias/on"}, "DryRunOperationException", None),
        (
            *(_method, {**IGNORE, "CiphertextBlob": b"no blob", _member: "alias/other"}),
            *("DryRunOperationException", None),
        ),
        (_method, {**IGNORE, _member: "alias/dying"}, "KMSInvalidStateException", None),
    ]


@pytest.mark.parametrize(("method", "fault", "code", "message"), FAULTS)
def test_each_fault_has_its_refusal(
    method: str, fault: dict[str, Any], code: str, message: str | None
) -> None:
    error = refusal(method, {**GOOD[method], **fault})
    assert error.code == code
    assert message is None or error.message == message
    if method != "DescribeKey" and code not in ("ValidationException", "DryRunOperationException"):
        again = refusal(method, {**GOOD[method], **fault, "DryRun": True})
        assert again.to_wire() == error.to_wire()


@pytest.mark.parametrize("method", METHODS)
def test_no_options_are_taken(method: str) -> None:
    assert refusal(method, GOOD[method], {"wait_s": 1}).code == "ValidationException"
    assert call(method, GOOD[method], {})


# Faults that one input can have together, in the order in which they are told.
SOURCE_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"GrantTokens": "token"}, "ValidationException"),
    (GRANTS, "InvalidGrantTokenException"),
    ({"SourceKeyId": "nowhere"}, "NotFoundException"),
    ({"SourceEncryptionAlgorithm": ASYMMETRIC}, "InvalidKeyUsageException"),
    ({"CiphertextBlob": b"no blob"}, "InvalidCiphertextException"),
    ({"CiphertextBlob": BLOB["alias/off"]}, "DisabledException"),
    ({"SourceKeyId": "alias/other"}, "IncorrectKeyException"),
    ({"DestinationKeyId": "alias/dying"}, "KMSInvalidStateException"),
    ({"DryRun": True}, "DryRunOperationException"),
]


def as_decrypt(fault: dict[str, Any]) -> dict[str, Any] | None:
    """The same fault in a Decrypt, if it can have it."""
    if "DestinationKeyId" in fault:
        return None
    return {name.removeprefix("Source"): value for name, value in fault.items()}


def as_encrypt(fault: dict[str, Any]) -> dict[str, Any] | None:
    if "CiphertextBlob" in fault or fault == {"SourceKeyId": "alias/other"}:
        return None
    return {name.removeprefix("Source").removeprefix("Destination"): value for name, value in fault.items()}


@pytest.mark.parametrize("method", ["ReEncrypt", "Decrypt", "Encrypt"])
def test_of_several_faults_the_first_of_the_one_order_is_told(method: str) -> None:
    translations = {"ReEncrypt": dict, "Decrypt": as_decrypt, "Encrypt": as_encrypt}
    translate = cast(Callable[[dict[str, Any]], dict[str, Any] | None], translations[method])
    rows = [(fault, code) for faults, code in SOURCE_FAULTS if (fault := translate(faults))]
    data = dict(GOOD[method])
    for fault, code in reversed(rows):  # each goes before all those that are there already
        data |= fault
        assert refusal(method, data).code == code
