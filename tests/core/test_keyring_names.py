"""Names of keys, and what is told of a key, in KMS's words."""

import os
import uuid

import pytest

from kpcache.errors import NotFoundException
from kpcache.keyring import Key, Keyring, crypto
from kpcache.keyring.document import Document, KeyRecord, Material

ALIAS = "alias/kpcache"
ARN = "arn:aws:kms:local:000000000000:"
UNKNOWN = uuid.UUID(int=7)


def keyring(state: str = "Enabled", deletion_s: float | None = None) -> Keyring:
    """One key, which the alias names."""
    key_id, secret = str(uuid.UUID(bytes=os.urandom(16), version=4)), os.urandom(32)
    material = Material(crypto.material_id(secret, key_id), 1.5, secret)
    record = KeyRecord(key_id, state, 1.5, deletion_s, "of a test", (material,))
    return Keyring(Document((record,), {ALIAS: key_id}), lambda: 0.0, os.urandom)


RING = keyring()
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
        ("alias/other", f"Alias {ARN}alias/other is not found."),
        (f"{ARN}alias/other", f"Alias {ARN}alias/other is not found."),
        (str(UNKNOWN), f"Key '{ARN}key/{UNKNOWN}' does not exist"),
        (
            f"{ARN}key/{UNKNOWN}",
            f"Key '{ARN}key/{UNKNOWN}' does not exist",
        ),
        ("arn:aws:kms:eu-west-1:111122223333:key/x", "Invalid arn eu-west-1"),
        ("arn:aws:s3:::bucket", "Invalid keyId 'arn:aws:s3:::bucket'"),
        ("\x1b[2J\n", "Invalid keyId '\\x1b[2J\\n'"),
        ("k" * 2048, f"Invalid keyId '{'k' * 128}...'"),
    ],
)
def test_names_that_lead_nowhere(key_id: str, message: str) -> None:
    with pytest.raises(NotFoundException) as caught:
        RING.resolve(key_id)
    assert str(caught.value) == message


def test_a_key_of_another_keyring_is_not_found() -> None:
    stranger = Key(str(UNKNOWN), f"{ARN}key/{UNKNOWN}", "Enabled", KEY.material_id)
    with pytest.raises(NotFoundException):
        RING.encrypt(stranger, b"private", {})
    with pytest.raises(NotFoundException):
        RING.describe(stranger)


def test_metadata_has_the_names_of_kms() -> None:
    assert RING.describe(KEY) == {
        "AWSAccountId": "000000000000",
        "KeyId": KEY.key_id,
        "Arn": KEY.arn,
        "CreationDate": 1.5,
        "Enabled": True,
        "Description": "of a test",
        "KeyUsage": "ENCRYPT_DECRYPT",
        "KeyState": "Enabled",
        "Origin": "AWS_KMS",
        "KeyManager": "CUSTOMER",
        "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
        "KeySpec": "SYMMETRIC_DEFAULT",
        "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
        "MultiRegion": False,
        "CurrentKeyMaterialId": KEY.material_id,
    }


@pytest.mark.parametrize(("state", "deletion_s"), [("Disabled", None), ("PendingDeletion", 9.5)])
def test_metadata_of_a_key_that_is_not_enabled(state: str, deletion_s: float | None) -> None:
    ring = keyring(state, deletion_s)
    metadata = ring.describe(ring.resolve(ALIAS))
    assert (metadata["KeyState"], metadata["Enabled"]) == (state, False)
    assert metadata.get("DeletionDate") == deletion_s


def test_only_one_spelling_of_a_key_id_is_known() -> None:
    for spelling in (KEY.key_id.upper(), KEY.key_id.replace("-", ""), f"{{{KEY.key_id}}}"):
        with pytest.raises(NotFoundException):
            RING.resolve(spelling)
