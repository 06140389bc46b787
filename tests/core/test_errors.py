"""Each error that travels has one code, says who must act, and comes out of the wire as it went in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache import errors
from kpcache.core.admin_operations import ADMIN_OPERATIONS
from kpcache.core.operations import OPERATIONS
from kpcache.errors import (
    WIRE_CLASSES,
    BusyError,
    CallerError,
    DependencyError,
    InternalError,
    KpcacheError,
    ThrottlingException,
    from_wire,
)
from tests import kms_model

METHODS = {name.removeprefix("kpcache.") for name in (*OPERATIONS, *ADMIN_OPERATIONS)}
# Not in the service model, yet every SDK meets them.
OF_EVERY_SERVICE = {"ThrottlingException", "ValidationException", "AccessDeniedException"}
# Of what no local key has: policies, imported material, other key stores, automatic rotation.
NEVER_SENT = {
    "MalformedPolicyDocumentException", "CustomKeyStoreNotFoundException",
    "CustomKeyStoreInvalidStateException", "CloudHsmClusterInvalidConfigurationException",
    "XksKeyInvalidConfigurationException", "XksKeyAlreadyInUseException", "XksKeyNotFoundException",
    "ConflictException",
}  # fmt: skip
MODELLED = set().union(
    *(kms_model.errors(name) for name in METHODS if name in kms_model.MODEL.operation_names)
)
KMS_NAMES = MODELLED - NEVER_SENT | OF_EVERY_SERVICE


def test_the_wire_has_the_errors_that_kms_gives_to_what_is_offered_and_no_others() -> None:
    assert set(WIRE_CLASSES) == KMS_NAMES
    assert MODELLED >= NEVER_SENT


@pytest.mark.parametrize("name", sorted(KMS_NAMES))
def test_an_error_comes_out_of_the_wire_as_it_went_in(name: str) -> None:
    sent = WIRE_CLASSES[name]("why", reason="word", retry_after_s=1.5)
    got = from_wire(sent.to_wire())
    assert type(got) is type(sent)
    assert (got.code, got.message, got.reason, got.retry_after_s) == (name, "why", "word", 1.5)
    assert WIRE_CLASSES[name]("why").to_wire() == {"Code": name, "Message": "why"}


def test_the_branch_says_who_must_act_and_no_error_is_in_two() -> None:
    branches = (CallerError, BusyError, DependencyError, InternalError)
    for cls in WIRE_CLASSES.values():
        assert sum(issubclass(cls, branch) for branch in branches) == 1
    assert issubclass(ThrottlingException, BusyError)
    assert issubclass(errors.KMSInternalException, InternalError)


def test_the_command_exits_by_branch() -> None:
    assert errors.NotFoundException().exit_code == 1
    assert errors.ConfigError().exit_code == 2
    assert errors.DaemonUnreachableError().exit_code == 3
    assert ThrottlingException().exit_code == 4


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
members = st.sampled_from(["Code", "Message", "Reason", "RetryAfterSeconds"])


@given(json_like | st.dictionaries(members, json_like | st.sampled_from(sorted(KMS_NAMES))))
def test_whatever_arrives_becomes_an_error_and_never_raises(wire: object) -> None:
    error = from_wire(wire)
    assert isinstance(error, KpcacheError)
    assert error.reason is None or isinstance(error.reason, str)
    assert error.retry_after_s is None or isinstance(error.retry_after_s, float)


def test_an_unknown_code_of_a_newer_daemon_is_told_and_not_lost() -> None:
    error = from_wire({"Code": "NewException", "Message": "why"})
    assert type(error) is KpcacheError
    assert error.message == "NewException: why"
