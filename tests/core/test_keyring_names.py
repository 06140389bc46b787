"""Names of keys, in KMS's words."""

import uuid

import pytest

from kpcache.errors import InvalidArnException, NotFoundException
from kpcache.keyring import Key, names
from tests.keyrings import ALIAS, keyring_of, record

ARN = "arn:aws:kms:local:000000000000:"
UNKNOWN = uuid.UUID(int=7)


RING = keyring_of(record())
KEY = RING.resolve(ALIAS)


def test_the_four_forms_of_a_key_id_name_the_same_key() -> None:
    assert KEY.arn == f"{ARN}key/{KEY.key_id}"
    for form in (KEY.key_id, KEY.arn, ALIAS, f"{ARN}{ALIAS}"):
        assert RING.resolve(form) is KEY


@pytest.mark.parametrize(
    ("key_id", "message"),
    [
        ("fake-key-id", "Invalid keyId 'fake-key-id'"),
        ("", "Invalid keyId ''"),
        ("alias/", "Invalid keyId 'alias/'"),
        ("alias/not so", "Invalid keyId 'alias/not so'"),
        ("alias/aws/s3", f"Alias {ARN}alias/aws/s3 is not found."),
        ("alias/other", f"Alias {ARN}alias/other is not found."),
        (f"{ARN}alias/other", f"Alias {ARN}alias/other is not found."),
        (str(UNKNOWN), f"Key '{ARN}key/{UNKNOWN}' does not exist"),
        (
            f"{ARN}key/{UNKNOWN}",
            f"Key '{ARN}key/{UNKNOWN}' does not exist",
        ),
        ("arn:aws:kms:eu-west-1:111122223333:key/x", "Invalid arn eu-west-1"),
        ("arn:aws:kms:eu-west-1:111122223333:alias/x", "Invalid arn eu-west-1"),
        (
            "arn:aws:kms:local:111122223333:key/x",
            "Key 'arn:aws:kms:local:111122223333:key/x' does not exist",
        ),
        ("arn:aws:s3:::bucket", "Invalid keyId 'arn:aws:s3:::bucket'"),
        ("\x1b[2J\n", "Invalid keyId '\\x1b[2J\\n'"),
        ("k" * 2048, f"Invalid keyId '{'k' * 128}...'"),
    ],
)
def test_names_that_lead_nowhere(key_id: str, message: str) -> None:
    with pytest.raises(NotFoundException) as caught:
        RING.resolve(key_id)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "key_id",
    [
        "arn:",
        "arn:aws:s3:::bucket",
        "arn:aws:kms:local:000000000000",
        f"{ARN}key/",
        f"{ARN}grant/x",
        "arn:aws:kms::000000000000:key/x",
        "arn:aws:kms:local:0:key/x",
        "arn:aws:kms:local:0000000000000:key/x",
        "arn:azure:kms:local:000000000000:key/x",
        f"{ARN}key/x\n",
        "arn:\x1b[2J\n",
    ],
)
def test_an_arn_that_is_none_of_a_key_is_malformed_where_kms_has_that_error(key_id: str) -> None:
    with pytest.raises(InvalidArnException, match="Invalid arn") as caught:
        names.refuse_malformed_arn(key_id)
    assert caught.value.message.isprintable()
    with pytest.raises(NotFoundException, match="Invalid keyId"):
        RING.resolve(key_id)


@pytest.mark.parametrize(
    "key_id",
    [
        *(KEY.key_id, KEY.arn, ALIAS, "fake-key-id", "", "ARN:aws:s3:::bucket", " arn:"),
        "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/x",
        f"{ARN}alias/not so",
    ],
)
def test_what_is_only_not_here_or_no_arn_is_not_malformed(key_id: str) -> None:
    names.refuse_malformed_arn(key_id)


def test_a_key_of_another_keyring_is_not_found() -> None:
    stranger = Key(str(UNKNOWN), f"{ARN}key/{UNKNOWN}", "Enabled")
    with pytest.raises(NotFoundException):
        RING.encrypt(stranger, b"private", {})
    with pytest.raises(NotFoundException):
        RING.describe(stranger)


def test_only_one_spelling_of_a_key_id_is_known() -> None:
    for spelling in (KEY.key_id.upper(), KEY.key_id.replace("-", ""), f"{{{KEY.key_id}}}"):
        with pytest.raises(NotFoundException):
            RING.resolve(spelling)
