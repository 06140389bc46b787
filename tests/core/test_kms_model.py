"""The operations of every client against KMS's own service model: nothing in it is forgotten.

Every member, required mark, bound, enum value and error of the model is either kept, shown by behaviour, or
listed below with the reason. A botocore whose model has more fails here until somebody has decided. The
methods of administration: test_kms_model_admin.
"""

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import botocore.loaders
import botocore.model
import pytest

from kpcache.core import contract
from kpcache.core.limits import Limits
from kpcache.core.operations import OPERATIONS
from kpcache.core.wire import Request
from kpcache.daemon.dispatcher import Dispatcher, Gate, PairOrder
from kpcache.errors import KpcacheError, ValidationException
from kpcache.keyring import Keyring
from kpcache.keyring.document import Document
from tests import kms_model
from tests.fakes import SPEC, WHO, FakeShards
from tests.keyrings import record

# --- inputs

# (shape, what was probed): why our check differs from the model's.
OTHER_BOUNDS = {
    ("EncryptionContextType", "unbounded"): "an own limit of entries: the model has none",
    ("EncryptionContextKey", "unbounded"): "an own limit of bytes: the model has none",
    ("EncryptionContextValue", "unbounded"): "an own limit of bytes: the model has none",
}


def takes(method: str, data: Any) -> bool:
    try:
        contract.validate(method, copy.deepcopy(data))
    except ValidationException:
        return False
    return True


def test_input_is_taken_and_refused_as_the_model_says() -> None:
    found = set()
    for method in OPERATIONS:
        shape = kms_model.operation(method).input_shape
        found |= kms_model.differences(functools.partial(takes, method), shape)
    assert found == OTHER_BOUNDS.keys()


@pytest.mark.parametrize("method", OPERATIONS)
def test_input_has_no_members_that_kms_has_not(method: str) -> None:
    assert OPERATIONS[method].checks.keys() == kms_model.operation(method).input_shape.members.keys()


def added_member(shapes: dict[str, Any]) -> None:
    shapes["DecryptRequest"]["members"]["Tomorrow"] = {"shape": "NullableBooleanType"}


def added_nested_member(shapes: dict[str, Any]) -> None:
    shapes["RecipientInfo"]["members"]["Tomorrow"] = {"shape": "NullableBooleanType"}


def added_value(shapes: dict[str, Any]) -> None:
    shapes["EncryptionAlgorithmSpec"]["enum"].append("TOMORROW")


def taken_value(shapes: dict[str, Any]) -> None:
    shapes["EncryptionAlgorithmSpec"]["enum"].remove("SM2PKE")


def other_bound(shapes: dict[str, Any]) -> None:
    shapes["CiphertextType"]["max"] += 1


def new_bound(shapes: dict[str, Any]) -> None:
    shapes["DryRunModifierList"]["max"] = 1


def required_member(shapes: dict[str, Any]) -> None:
    shapes["DecryptRequest"]["required"] = ["CiphertextBlob"]


CHANGES = [
    *(added_member, added_nested_member, added_value, taken_value),
    *(other_bound, new_bound, required_member),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_later_model_changes_is_noticed(change: Callable[[dict[str, Any]], None]) -> None:
    model = botocore.loaders.Loader().load_service_model("kms", "service-2")
    change(model["shapes"])
    shape = botocore.model.ServiceModel(model, "kms").operation_model("Decrypt").input_shape
    assert kms_model.differences(functools.partial(takes, "Decrypt"), shape) - OTHER_BOUNDS.keys()


# --- a keyring with keys in every state, and what is asked of it

KEYS = {f"alias/{name}": record(2) for name in ("on", "other", "off", "dying")}
STATES = {"alias/off": ("Disabled", None), "alias/dying": ("PendingDeletion", 9.5)}
PLAINTEXT = b"a private key"


def content(states: dict[str, tuple[str, float | None]]) -> Document:
    records = []
    for alias, key in KEYS.items():
        state, deletion_s = states.get(alias, ("Enabled", None))
        records.append(dataclasses.replace(key, state=state, deletion_s=deletion_s))
    return Document(tuple(records), {alias: key.key_id for alias, key in KEYS.items()}, 1, 0)


RING = Keyring(content({}))
BLOB = {alias: RING.encrypt(RING.resolve(alias), PLAINTEXT, {}).blob for alias in KEYS}
RING.adopt(content(STATES))


def ask(method: str, data: dict[str, Any], *, issuing: bool = True) -> dict[str, Any]:
    """The daemon's answer, given a pool that is not dry."""
    shards = FakeShards(clock=lambda: 0.0)
    shards.fill(1)
    dispatcher = Dispatcher(shards.stock, RING, Limits(), Gate(alarm=not issuing), dict)
    work = dispatcher.begin(Request(1, method, dict(data), None))
    if not isinstance(work, PairOrder):
        return work
    pair = dispatcher.take(work, WHO)
    assert pair is not None
    return dispatcher.build(work, pair)


PAIR = {"KeyId": "alias/on", "KeyPairSpec": SPEC}
GOOD: dict[str, dict[str, Any]] = {
    "GenerateDataKeyPair": PAIR,
    "GenerateDataKeyPairWithoutPlaintext": PAIR,
    "Encrypt": {"KeyId": "alias/on", "Plaintext": PLAINTEXT},
    "Decrypt": {"CiphertextBlob": BLOB["alias/on"]},
    "ReEncrypt": {"CiphertextBlob": BLOB["alias/on"], "DestinationKeyId": "alias/other"},
    "DescribeKey": {"KeyId": "alias/on"},
}

# --- answers

FOR_ENCLAVES = "only in the answer to a Recipient, which is refused"
NEVER_ANSWERED = {
    "GenerateDataKeyPair": {"CiphertextForRecipient": FOR_ENCLAVES},
    "Decrypt": {"CiphertextForRecipient": FOR_ENCLAVES},
    "DescribeKey": {
        "KeyMetadata.ValidTo": "imported material expires, and none is imported",
        "KeyMetadata.ExpirationModel": "imported material expires, and none is imported",
        "KeyMetadata.CustomKeyStoreId": "this keyring is the only key store",
        "KeyMetadata.CloudHsmClusterId": "this keyring is the only key store",
        "KeyMetadata.XksKeyConfiguration": "this keyring is the only key store",
        "KeyMetadata.XksKeyConfiguration.Id": "this keyring is the only key store",
        "KeyMetadata.SigningAlgorithms": "only of asymmetric keys",
        "KeyMetadata.KeyAgreementAlgorithms": "only of asymmetric keys",
        "KeyMetadata.EncapsulationAlgorithms": "only of asymmetric keys",
        "KeyMetadata.MacAlgorithms": "only of HMAC keys",
        "KeyMetadata.PendingDeletionWindowInDays": "only of a primary key in several regions",
        **{
            f"KeyMetadata.MultiRegionConfiguration{member}": "only of keys in several regions"
            for member in (
                *("", ".MultiRegionKeyType", ".PrimaryKey", ".PrimaryKey.Arn", ".PrimaryKey.Region"),
                *(".ReplicaKeys", ".ReplicaKeys.Arn", ".ReplicaKeys.Region"),
            )
        },
    },
}


@pytest.mark.parametrize("method", OPERATIONS)
def test_answers_have_the_members_and_shapes_of_the_model(method: str) -> None:
    shape = kms_model.operation(method).output_shape
    # A key of each state: a date of deletion is told of one that has it.
    asked = [{"KeyId": alias} for alias in KEYS] if method == "DescribeKey" else [GOOD[method]]
    told = set()
    for data in asked:
        answer = ask(method, data)
        assert kms_model.misfit(answer, shape) == ""
        told |= kms_model.paths(answer)
    assert told | NEVER_ANSWERED.get(method, {}).keys() == kms_model.shape_paths(shape)
    assert not told & NEVER_ANSWERED.get(method, {}).keys()


# --- errors

NEVER_RAISED = {
    "KeyUnavailableException": "material is in memory as long as the daemon runs: it is never unavailable",
    "DependencyTimeoutException": "nothing outside the daemon is asked",
    "KMSInternalException": "a defect; the connection answers so: test_session, test_context_privacy",
}
BEYOND_THE_MODEL = {
    ("DescribeKey", "InvalidGrantTokenException"): "takes GrantTokens, and there are no grants",
    ("Decrypt", "UnsupportedOperationException"): "takes Recipient, which is not offered",
}
OF_PAIRS: dict[str, dict[str, Any]] = {
    "NotFoundException": {"KeyId": "nowhere"},
    "DisabledException": {"KeyId": "alias/off"},
    "KMSInvalidStateException": {"KeyId": "alias/dying"},
    "InvalidGrantTokenException": {"GrantTokens": ["token"]},
    "UnsupportedOperationException": {"KeyPairSpec": "SM2"},
    "DryRunOperationException": {"DryRun": True},
}
OF_BLOBS: dict[str, dict[str, Any]] = {
    "InvalidCiphertextException": {"CiphertextBlob": b"no blob"},
    "DisabledException": {"CiphertextBlob": BLOB["alias/off"]},
    "KMSInvalidStateException": {"CiphertextBlob": BLOB["alias/dying"]},
    "InvalidGrantTokenException": {"GrantTokens": ["token"]},
    "DryRunOperationException": {"DryRun": True},
}
# Of each operation: what is changed in an input that succeeds, so that it is refused with this error.
RAISED: dict[str, dict[str, dict[str, Any]]] = {
    "GenerateDataKeyPair": OF_PAIRS,
    "GenerateDataKeyPairWithoutPlaintext": OF_PAIRS,
    "Encrypt": {
        **{code: fault for code, fault in OF_PAIRS.items() if code != "UnsupportedOperationException"},
        "InvalidKeyUsageException": {"EncryptionAlgorithm": "RSAES_OAEP_SHA_1"},
    },
    "Decrypt": {
        **OF_BLOBS,
        "NotFoundException": {"KeyId": "nowhere"},
        "IncorrectKeyException": {"KeyId": "alias/other"},
        "InvalidKeyUsageException": {"EncryptionAlgorithm": "RSAES_OAEP_SHA_1"},
        "UnsupportedOperationException": {"Recipient": {}},
    },
    "ReEncrypt": {
        **OF_BLOBS,
        "NotFoundException": {"SourceKeyId": "nowhere"},
        "IncorrectKeyException": {"SourceKeyId": "alias/other"},
        "InvalidKeyUsageException": {"DestinationEncryptionAlgorithm": "RSAES_OAEP_SHA_1"},
    },
    "DescribeKey": {
        "NotFoundException": {"KeyId": "nowhere"},
        "InvalidArnException": {"KeyId": "arn:aws:s3:::bucket"},
        "InvalidGrantTokenException": {"GrantTokens": ["token"]},
    },
}
NOT_OF_PAIRS = "pairs name no algorithm, and every local key is one that encrypts and decrypts"
NEVER_RAISED_BY = {
    ("GenerateDataKeyPair", "InvalidKeyUsageException"): NOT_OF_PAIRS,
    ("GenerateDataKeyPairWithoutPlaintext", "InvalidKeyUsageException"): NOT_OF_PAIRS,
}


@pytest.mark.parametrize("method", OPERATIONS)
def test_every_error_of_the_model_is_raised_or_has_a_reason_why_not(method: str) -> None:
    listed = {code for operation, code in NEVER_RAISED_BY if operation == method}
    modelled = kms_model.errors(method)
    beyond = {code for operation, code in BEYOND_THE_MODEL if operation == method}
    assert not RAISED[method].keys() & (listed | NEVER_RAISED.keys())
    assert RAISED[method].keys() - modelled == beyond
    assert RAISED[method].keys() | listed | (NEVER_RAISED.keys() & modelled) == modelled | beyond


@pytest.mark.parametrize(
    ("method", "code"), [(method, code) for method, faults in RAISED.items() for code in faults]
)
def test_the_error_of_the_table_is_the_one_raised(method: str, code: str) -> None:
    with pytest.raises(KpcacheError) as caught:
        ask(method, {**GOOD[method], **RAISED[method][code]})
    assert caught.value.code == code


def test_every_listed_reason_is_still_needed() -> None:
    modelled = set().union(*(kms_model.errors(method) for method in OPERATIONS))
    assert modelled >= NEVER_RAISED.keys()
    assert all(code in kms_model.errors(method) for method, code in NEVER_RAISED_BY)
    assert all(code not in kms_model.errors(method) for method, code in BEYOND_THE_MODEL)
