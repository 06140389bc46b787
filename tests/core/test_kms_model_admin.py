"""The methods of administration against KMS's own service model, as test_kms_model has those of clients."""

import copy
import dataclasses
import functools
import os
from typing import Any, cast

import pytest

from kpcache.core import contract
from kpcache.core.admin_operations import ADMIN_OPERATIONS
from kpcache.core.limits import Limits
from kpcache.core.wire import Request
from kpcache.daemon.admin_changes import CHANGES, Setting
from kpcache.daemon.administrator import Administrator, Caller
from kpcache.daemon.alarm import Incidents
from kpcache.daemon.dispatcher import Dispatcher, Gate
from kpcache.errors import KpcacheError, ValidationException
from kpcache.keyring import Keyring
from kpcache.keyring.document import Document
from kpcache.keyring.vault import Vault
from tests import kms_model
from tests.administration import FakeIncidents, FakeQuiescence
from tests.fakes import FakeShards
from tests.keyrings import record

OWN_METHODS = {
    "PurgeKey", "ExportKeyring", "MarkExported", "ImportKeyring", "DescribeAlarm", "ClearAlarm",
    "AcknowledgeLedger",
    "Quiesce",
    "Resume",
    "Reload",
}  # fmt: skip
OWN_MEMBERS = {"CreateKey": {"AliasName"}}  # a key and its alias in one change
METHODS = [name.removeprefix("kpcache.") for name in ADMIN_OPERATIONS]
KMS = [name for name in METHODS if name not in OWN_METHODS]

# --- inputs

PAGE = "its page of the API reference says so, and KMS answers so"
NO_POLICY = "refused whatever is in it: local keys have no policies"
# (operation, shape, what was probed): why our check differs from the model's.
OTHER_BOUNDS = {
    ("CreateKey", "PolicyType", "pattern"): NO_POLICY,
    ("CreateKey", "XksKeyIdType", "pattern"): "refused whatever is in it: there are no other key stores",
    ("CreateKey", "TagList", "unbounded"): "as many as a message may hold; KMS takes 50",
    ("TagResource", "TagList", "unbounded"): "as many as a message may hold; KMS takes 50",
    ("UntagResource", "TagKeyList", "unbounded"): "as many as a message may hold; a key has 50",
    ("ListAliases", "LimitType", "value"): PAGE,
    ("ListResourceTags", "LimitType", "value"): PAGE,
    ("ScheduleKeyDeletion", "PendingWindowInDaysType", "value"): PAGE,
}


def takes(method: str, data: Any) -> bool:
    try:
        contract.validate(f"kpcache.{method}", copy.deepcopy(data))
    except ValidationException:
        return False
    return True


def test_every_method_is_one_of_kms_or_listed() -> None:
    assert {name for name in METHODS if name not in kms_model.MODEL.operation_names} == OWN_METHODS


def test_input_is_taken_and_refused_as_the_model_says() -> None:
    found = set()
    for method in KMS:
        shape = kms_model.operation(method).input_shape
        for each in kms_model.differences(functools.partial(takes, method), shape):
            found.add((method, *each))
    assert found == OTHER_BOUNDS.keys()


@pytest.mark.parametrize("method", KMS)
def test_input_has_no_members_that_kms_has_not(method: str) -> None:
    members = kms_model.operation(method).input_shape.members.keys()
    assert ADMIN_OPERATIONS[f"kpcache.{method}"].checks.keys() - members == OWN_MEMBERS.get(method, set())


# --- a keyring with keys in every state, and what is asked of it

DEFAULT = "alias/kpcache"
KEYS = {
    DEFAULT: record(),
    "alias/on": dataclasses.replace(record(3), tags={"a": "1"}, description="of a test"),
    "alias/off": record(state="Disabled"),
    "alias/dying": record(state="PendingDeletion", deletion_s=9e9),
}
INCIDENTS = cast(Incidents, FakeIncidents())
NOT_ASKED = cast(Any, FakeQuiescence())
CONTENT = Document(tuple(KEYS.values()), {alias: key.key_id for alias, key in KEYS.items()}, 1, 0)


def ask(method: str, data: dict[str, Any]) -> dict[str, Any]:
    """The answer, as the administrator begins it; a change is made of the content, and not written."""
    ring = Keyring(CONTENT)
    dispatcher = Dispatcher(FakeShards(clock=lambda: 0.0).stock, ring, Limits(), Gate(), dict)
    administrator = Administrator(
        dispatcher, Gate(), cast(Vault, None), ring, DEFAULT, Limits(), INCIDENTS, NOT_ASKED, NOT_ASKED
    )
    name = f"kpcache.{method}"
    work = administrator.begin(Caller(0, 1), Request(1, name, dict(data), None))
    if isinstance(work, dict):
        return work
    return CHANGES[name](CONTENT, data, Setting(1.0, os.urandom, DEFAULT, 0.0)).answer


KEY = {"KeyId": "alias/on"}
GOOD: dict[str, dict[str, Any]] = {
    "CreateKey": {},
    "ListKeys": {"Limit": 1},
    "ListAliases": {"Limit": 1},
    "ListKeyRotations": {**KEY, "Limit": 1, "IncludeKeyMaterial": "ALL_KEY_MATERIAL"},
    "ListResourceTags": KEY,
    "CreateAlias": {"AliasName": "alias/new", "TargetKeyId": "alias/on"},
    "UpdateAlias": {"AliasName": "alias/off", "TargetKeyId": "alias/on"},
    "DeleteAlias": {"AliasName": "alias/off"},
    "EnableKey": KEY,
    "DisableKey": KEY,
    "UpdateKeyDescription": {**KEY, "Description": ""},
    "TagResource": {**KEY, "Tags": []},
    "UntagResource": {**KEY, "TagKeys": ["a"]},
    "ScheduleKeyDeletion": KEY,
    "CancelKeyDeletion": {"KeyId": "alias/dying"},
    "RotateKeyOnDemand": KEY,
}

# --- answers; those of CreateKey have the KeyMetadata of DescribeKey, which test_kms_model has

IMPORTED = "only of imported material, and none is imported"
NEVER_ANSWERED = {
    "ListAliases": {
        "Aliases.CreationDate": "not kept: what an alias names matters, not since when",
        "Aliases.LastUpdatedDate": "not kept: what an alias names matters, not since when",
    },
    "ListKeyRotations": {
        "Rotations.ImportState": IMPORTED,
        "Rotations.ExpirationModel": IMPORTED,
        "Rotations.ValidTo": IMPORTED,
        "Rotations.KeyMaterialDescription": IMPORTED,
    },
    "ListResourceTags": {"NextMarker": "a key has 50 tags at most, which is what a page holds"},
}


@pytest.mark.parametrize("method", KMS)
def test_answers_have_the_members_and_shapes_of_the_model(method: str) -> None:
    shape = kms_model.operation(method).output_shape
    inputs = [GOOD[method]]
    if method == "ListKeyRotations":
        inputs.append(KEY)  # a first material has no date of rotation
    told = set()
    for data in inputs:
        answer = ask(method, data)
        if shape is not None:
            assert kms_model.misfit(answer, shape) == ""
        told |= kms_model.paths(answer)
    listed = NEVER_ANSWERED.get(method, {}).keys()
    if method == "CreateKey":
        assert told <= kms_model.shape_paths(shape)
    else:
        assert told | listed == kms_model.shape_paths(shape)
        assert not told & listed


# --- errors

NEVER_RAISED = {
    "DependencyTimeoutException": "a change waits for its disk, however long that takes",
    "KMSInternalException": "a defect; the administrator answers so: test_administrator",
}
NO_OTHER_STORE = "there are no other key stores"
ON_WRITING = "only when the keyring would get too large, which is found when it is written: test_vault"
ONE_KIND = "every local key is of the one kind that this takes"
NEVER_RAISED_BY: dict[str, dict[str, str]] = {
    "CreateKey": {
        "LimitExceededException": ON_WRITING,
        "MalformedPolicyDocumentException": NO_POLICY,
        "InvalidArnException": "an ARN in a policy: local keys have none",
        "CustomKeyStoreNotFoundException": NO_OTHER_STORE,
        "CustomKeyStoreInvalidStateException": NO_OTHER_STORE,
        "CloudHsmClusterInvalidConfigurationException": NO_OTHER_STORE,
        "XksKeyInvalidConfigurationException": NO_OTHER_STORE,
        "XksKeyAlreadyInUseException": NO_OTHER_STORE,
        "XksKeyNotFoundException": NO_OTHER_STORE,
    },
    "ListKeyRotations": {
        "KMSInvalidStateException": "the materials of a key in any state are told",
        "UnsupportedOperationException": ONE_KIND,
    },
    "CreateAlias": {"LimitExceededException": ON_WRITING},
    "UpdateAlias": {"LimitExceededException": ON_WRITING},
    "EnableKey": {"LimitExceededException": ON_WRITING},
    "TagResource": {"LimitExceededException": ON_WRITING},
    "UntagResource": {"TagException": "a tag that is not there is no error"},
    "RotateKeyOnDemand": {
        "LimitExceededException": ON_WRITING,
        "UnsupportedOperationException": ONE_KIND,
        "ConflictException": "changes are made one after the other, and no rotation is automatic",
    },
}
BEYOND_THE_MODEL = {
    ("CreateKey", "AlreadyExistsException"): "of its own AliasName",
    ("CreateKey", "InvalidAliasNameException"): "of its own AliasName",
    ("ListKeys", "UnsupportedOperationException"): "takes ResourceOwners, and there are no other accounts",
}
NOWHERE = {"KeyId": "nowhere"}
MALFORMED = {"KeyId": "arn:aws:s3:::bucket"}
DYING = {"KeyId": "alias/dying"}
OF_A_KEY = {"NotFoundException": NOWHERE, "InvalidArnException": MALFORMED}
OF_A_CHANGE = {**OF_A_KEY, "KMSInvalidStateException": DYING}
MARKER = {"InvalidMarkerException": {"Marker": "no marker"}}
TOO_MANY_TAGS = [{"TagKey": str(number), "TagValue": ""} for number in range(51)]
RESERVED_TAG = [{"TagKey": "aws:x", "TagValue": ""}]
# Of each operation: what is changed in an input that succeeds, so that it is refused with this error.
RAISED: dict[str, dict[str, dict[str, Any]]] = {
    "CreateKey": {
        "UnsupportedOperationException": {"KeySpec": "RSA_2048"},
        "TagException": {"Tags": RESERVED_TAG},
        "AlreadyExistsException": {"AliasName": DEFAULT},
        "InvalidAliasNameException": {"AliasName": "alias/aws/x"},
    },
    "ListKeys": {**MARKER, "UnsupportedOperationException": {"ResourceOwners": ["OTHER_ACCOUNTS_VIA_RAM"]}},
    "ListAliases": OF_A_KEY | MARKER,
    "ListKeyRotations": OF_A_KEY | MARKER,
    "ListResourceTags": OF_A_KEY | MARKER,
    "CreateAlias": {
        "AlreadyExistsException": {"AliasName": DEFAULT},
        "InvalidAliasNameException": {"AliasName": "alias/aws/x"},
        "NotFoundException": {"TargetKeyId": "arn:aws:s3:::bucket"},
        "KMSInvalidStateException": {"TargetKeyId": "alias/dying"},
    },
    "UpdateAlias": {
        "NotFoundException": {"AliasName": "alias/new"},
        "KMSInvalidStateException": {"TargetKeyId": "alias/dying"},
    },
    "DeleteAlias": {
        "NotFoundException": {"AliasName": "alias/new"},
        "KMSInvalidStateException": {"AliasName": DEFAULT},
    },
    "EnableKey": OF_A_CHANGE,
    "DisableKey": OF_A_CHANGE,
    "UpdateKeyDescription": OF_A_CHANGE,
    "TagResource": {
        **OF_A_CHANGE,
        "TagException": {"Tags": TOO_MANY_TAGS},
    },
    "UntagResource": OF_A_CHANGE,
    "ScheduleKeyDeletion": OF_A_CHANGE,
    "CancelKeyDeletion": {**OF_A_KEY, "KMSInvalidStateException": KEY},
    "RotateKeyOnDemand": {**OF_A_CHANGE, "DisabledException": {"KeyId": "alias/off"}},
}


@pytest.mark.parametrize("method", KMS)
def test_every_error_of_the_model_is_raised_or_has_a_reason_why_not(method: str) -> None:
    """Besides: KeyUnavailableException, of every change that cannot be written (test_administrator)."""
    modelled, raised = kms_model.errors(method), RAISED[method].keys()
    listed = NEVER_RAISED_BY.get(method, {}).keys()
    beyond = {code for operation, code in BEYOND_THE_MODEL if operation == method}
    assert listed <= modelled
    assert not raised & (listed | NEVER_RAISED.keys())
    assert raised - modelled == beyond
    assert raised | listed | (NEVER_RAISED.keys() & modelled) == modelled | beyond


@pytest.mark.parametrize(
    ("method", "code"), [(method, code) for method, faults in RAISED.items() for code in faults]
)
def test_the_error_of_the_table_is_the_one_raised(method: str, code: str) -> None:
    with pytest.raises(KpcacheError) as caught:
        ask(method, {**GOOD[method], **RAISED[method][code]})
    assert caught.value.code == code
