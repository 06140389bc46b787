"""Requests against KMS's rules: what passes, what is refused, and in which words."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpcache.core import contract
from kpcache.core.operations import OPERATIONS
from kpcache.core.specs import SPECS
from kpcache.errors import (
    DryRunOperationException,
    InvalidGrantTokenException,
    InvalidKeyUsageException,
    UnsupportedOperationException,
    ValidationException,
)

PAIR: dict[str, Any] = {"KeyId": "alias/kpcache", "KeyPairSpec": "RSA_2048"}
BLOB: dict[str, Any] = {"CiphertextBlob": b"blob"}


def refusal(method: str, data: object) -> str:
    with pytest.raises(ValidationException) as caught:
        contract.validate(method, data)
    return caught.value.message


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("GenerateDataKeyPair", PAIR),
        ("GenerateDataKeyPair", {**PAIR, "EncryptionContext": {"app": "billing"}, "DryRun": False}),
        ("GenerateDataKeyPair", {**PAIR, "GrantTokens": [], "EncryptionContext": {}}),
        ("GenerateDataKeyPair", {**PAIR, "Recipient": {"AttestationDocument": b"cose"}}),
        ("GenerateDataKeyPair", {**PAIR, "Recipient": {"KeyEncryptionAlgorithm": None}}),
        ("Encrypt", {"KeyId": "k", "Plaintext": b"p" * 4096, "EncryptionAlgorithm": "SM2PKE"}),
        ("ReEncrypt", {"DestinationKeyId": "k", "SourceKeyId": "k", "SourceEncryptionContext": {"é": ""}}),
        ("GenerateDataKeyPairWithoutPlaintext", {**PAIR, "GrantTokens": ["t"] * 10}),
        ("Decrypt", BLOB),
        ("Decrypt", {**BLOB, "KeyId": "k" * 2048, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}),
        (
            "Decrypt",
            {"CiphertextBlob": b"b" * 6144, "DryRun": True, "DryRunModifiers": ["IGNORE_CIPHERTEXT"]},
        ),
        ("DescribeKey", {"KeyId": "k", "GrantTokens": ["t" * 8192]}),
    ],
)
def test_sound_input_comes_back_as_it_is(method: str, data: dict[str, Any]) -> None:
    before = dict(data)
    assert contract.validate(method, data) is data
    assert data == before


@pytest.mark.parametrize("spec", SPECS)
def test_every_spec_of_the_table_is_a_sound_value(spec: str) -> None:
    """Also those that cannot be made here: they are answered as unsupported, not as a typing error."""
    assert contract.validate("GenerateDataKeyPair", {**PAIR, "KeyPairSpec": spec})


@pytest.mark.parametrize(
    ("method", "data", "told"),
    [
        ("GenerateDataKeyPair", {"KeyPairSpec": "RSA_2048"}, "Value null at 'keyId'"),
        ("GenerateDataKeyPair", {**PAIR, "KeyPairSpec": None}, "Value null at 'keyPairSpec'"),
        ("Encrypt", {"KeyId": "k"}, "Value null at 'plaintext'"),
        ("ReEncrypt", BLOB, "Value null at 'destinationKeyId'"),
        ("DescribeKey", {}, "Value null at 'keyId'"),
        (
            "DescribeKey",
            {"KeyId": ""},
            "'keyId' failed to satisfy constraint: Member must have length greater",
        ),
        ("DescribeKey", {"KeyId": "k" * 2049}, "Member must have length less than or equal to 2048"),
        (
            "DescribeKey",
            {"KeyId": b"alias/kpcache"},
            "Value at 'keyId' failed to satisfy constraint: Member must be",
        ),
        ("DescribeKey", {"KeyId": "k", "DryRun": True}, "Unknown member 'DryRun'"),
        ("DescribeKey", {"KeyId": "k", "keyId": "k"}, "Unknown member 'keyId'"),
        ("DescribeKey", {"KeyId": "k", 7: "k"}, "Unknown member '7'"),
        ("DescribeKey", {"KeyId": "k", "Foo": None}, "Unknown member 'Foo'"),
        ("GenerateDataKeyPairWithoutPlaintext", {**PAIR, "Recipient": {}}, "Unknown member 'Recipient'"),
        ("GenerateDataKeyPair", {**PAIR, "Recipient": b"cose"}, "'recipient' failed"),
        ("Decrypt", {**BLOB, "Recipient": {"Key": 1}}, "Member must have no members but KeyEnc"),
        (
            "Decrypt",
            {**BLOB, "Recipient": {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_1"}},
            "'recipient.keyEncryptionAlgorithm' failed to satisfy constraint: Member must satisfy enum",
        ),
        (
            "GenerateDataKeyPair",
            {**PAIR, "Recipient": {"AttestationDocument": b"d" * 262145}},
            "'recipient.attestationDocument' failed to satisfy constraint: Member must have length less",
        ),
        ("GenerateDataKeyPair", {**PAIR, "KeyPairSpec": 2048}, "enum value set: [RSA_2048, RSA_3072, "),
        ("GenerateDataKeyPair", {**PAIR, "KeyPairSpec": "rsa_2048"}, "enum value set: [RSA_2048, RSA_3072, "),
        (
            "GenerateDataKeyPair",
            {**PAIR, "DryRun": 1},
            "'dryRun' failed to satisfy constraint: Member must be a bool",
        ),
        ("GenerateDataKeyPair", {**PAIR, "GrantTokens": ["t"] * 11}, "'grantTokens' failed"),
        ("GenerateDataKeyPair", {**PAIR, "GrantTokens": ["t", ""]}, "'grantTokens.2.member' failed"),
        ("GenerateDataKeyPair", {**PAIR, "GrantTokens": "t"}, "'grantTokens' failed"),
        ("GenerateDataKeyPair", {**PAIR, "GrantTokens": ["t" * 8193]}, "'grantTokens.1.member' failed"),
        ("Decrypt", {"CiphertextBlob": b""}, "Member must have length greater than or equal to 1"),
        ("Decrypt", {"CiphertextBlob": b"b" * 6145}, "Member must have length less than or equal to 6144"),
        (
            "Decrypt",
            {"CiphertextBlob": "YmxvYg=="},
            "'ciphertextBlob' failed to satisfy constraint: Member must be a",
        ),
        ("Decrypt", {**BLOB, "EncryptionAlgorithm": "AES"}, "enum value set: [SYMMETRIC_DEFAULT, "),
        ("Decrypt", {**BLOB, "DryRunModifiers": ["ALL"]}, "enum value set: [IGNORE_CIPHERTEXT]"),
        ("Decrypt", [], "The input must be a map"),
        ("Decrypt", None, "The input must be a map"),
    ],
)
def test_unsound_input_is_refused_in_the_words_of_kms(method: str, data: object, told: str) -> None:
    message = refusal(method, data)
    assert message.startswith("1 validation error detected: ")
    assert told in message


def test_the_recorded_wording_of_a_length_is_kept_whole() -> None:
    assert refusal("Decrypt", {"CiphertextBlob": b"b" * 6145}) == (
        "1 validation error detected: Value at 'ciphertextBlob' failed to satisfy constraint: "
        "Member must have length less than or equal to 6144"
    )


@pytest.mark.parametrize(
    "context",
    [
        [],
        "app=billing",
        {"app": 1},
        {"app": None},
        {"app": True},
        {"app": b"billing"},
        {b"app": "billing"},
        {1: "billing"},
        {"app": {"name": "billing"}},
        {"app": "\ud800"},
        {"\udfff": ""},
        {str(number): "" for number in range(65)},
        {"app": "x" * 8190},
        {"é" * 2048: "é" * 2049},
    ],
)
def test_a_context_is_a_small_map_of_strings_to_strings(context: object) -> None:
    assert "'encryptionContext' failed" in refusal(
        "GenerateDataKeyPair", {**PAIR, "EncryptionContext": context}
    )


@pytest.mark.parametrize(
    "context",
    [
        {str(number): "" for number in range(64)},
        {"app": "x" * 8189},
        {"é" * 2048: "é" * 2048},
        {"": ""},
        {"\0": "\n"},
    ],
)
def test_a_context_at_its_limits_is_sound(context: dict[str, str]) -> None:
    assert contract.validate("Decrypt", {**BLOB, "EncryptionContext": context})


def test_nil_members_are_taken_for_absent() -> None:
    data = {**PAIR, "EncryptionContext": None, "GrantTokens": None, "DryRun": None, "Recipient": None}
    assert contract.validate("GenerateDataKeyPair", data) == PAIR


def test_all_problems_are_counted_and_the_first_ones_told() -> None:
    message = refusal("GenerateDataKeyPair", {"DryRun": 0, **{f"m{number}": 1 for number in range(1000)}})
    assert message.startswith("1003 validation errors detected: Value null at 'keyId' failed")
    assert message.count("; ") < 10
    assert len(message) < 1500


def test_what_a_client_sent_is_told_escaped_and_cut_or_not_at_all() -> None:
    message = refusal("Decrypt", {**BLOB, "\x1b[2J\n" + "m" * 5000: 1, "KeyId": "secret\n" * 500})
    assert "Unknown member '\\x1b[2J\\nmmm" in message
    assert message.isprintable()
    assert len(message) < 1000
    assert "secret" not in message


@pytest.mark.parametrize(("text", "told"), [("é\ud800", "\\xe9\\ud800"), ("a" * 129, "a" * 128 + "...")])
def test_shown(text: str, told: str) -> None:
    assert contract.shown(text) == told


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9) | st.binary(max_size=3), inner)
    ),
    max_leaves=6,
)
member_names = sorted({name for operation in OPERATIONS.values() for name in operation.checks})


@settings(deadline=None)
@given(
    st.sampled_from(sorted(OPERATIONS)),
    st.dictionaries(st.sampled_from(member_names), values) | values,
)
def test_any_value_is_either_sound_or_a_validation_error(method: str, data: object) -> None:
    try:
        sound = contract.validate(method, data)
    except ValidationException:
        return
    operation = OPERATIONS[method]
    assert set(operation.required) <= sound.keys() <= operation.checks.keys()
    assert None not in sound.values()


def test_what_is_not_offered_is_refused_and_never_skipped() -> None:
    contract.refuse_unoffered({**PAIR, "GrantTokens": []})
    both = {"Recipient": {}, "GrantTokens": ["token"], "DryRun": True}
    with pytest.raises(UnsupportedOperationException, match="Recipient"):
        contract.refuse_unoffered({**PAIR, **both})
    with pytest.raises(InvalidGrantTokenException):
        contract.refuse_unoffered({**PAIR, "GrantTokens": ["token"], "DryRun": True})


IGNORE = {"DryRun": True, "DryRunModifiers": ["IGNORE_CIPHERTEXT"]}


@pytest.mark.parametrize(("method", "key_member"), [("Decrypt", "KeyId"), ("ReEncrypt", "SourceKeyId")])
def test_the_blob_is_required_but_in_a_dry_run_that_ignores_it_where_its_key_is(
    method: str, key_member: str
) -> None:
    def ask(**members: object) -> bool:
        needed = dict.fromkeys(OPERATIONS[method].required, "alias/k")
        return contract.ignores_ciphertext(contract.validate(method, {**needed, **members}), key_member)

    assert not ask(**BLOB)
    assert not ask(**BLOB, DryRun=True, DryRunModifiers=[])
    assert ask(**IGNORE, **{key_member: "k"})
    assert ask(**IGNORE, **{key_member: "k"}, **BLOB)
    for members, told in [
        ({}, "Value null at 'ciphertextBlob'"),
        ({"DryRun": True, key_member: "k"}, "Value null at 'ciphertextBlob'"),
        ({**IGNORE, **BLOB}, f"Value null at '{key_member[0].lower()}{key_member[1:]}'"),
        ({**BLOB, **IGNORE, "DryRun": False}, "'dryRunModifiers' failed to satisfy constraint: Member needs"),
        ({**BLOB, **IGNORE, "DryRun": None}, "'dryRunModifiers' failed to satisfy constraint: Member needs"),
    ]:
        with pytest.raises(ValidationException, match="1 validation error detected: ") as caught:
            ask(**members)
        assert told in caught.value.message


def test_algorithms_of_asymmetric_keys_are_a_wrong_usage_of_local_ones() -> None:
    contract.require_symmetric({}, "EncryptionAlgorithm")
    contract.require_symmetric({"EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}, "EncryptionAlgorithm")
    with pytest.raises(InvalidKeyUsageException) as caught:
        contract.require_symmetric({"B": "RSAES_OAEP_SHA_1"}, "A", "B")
    assert caught.value.message == (
        "Algorithm RSAES_OAEP_SHA_1 is incompatible with key spec SYMMETRIC_DEFAULT."
    )


def test_a_dry_run_that_would_succeed_ends_in_the_recorded_words() -> None:
    contract.refuse_dry_run({"DryRun": False})
    with pytest.raises(DryRunOperationException) as caught:
        contract.refuse_dry_run({"DryRun": True})
    assert caught.value.message == "The request would have succeeded, but the DryRun option is set."
