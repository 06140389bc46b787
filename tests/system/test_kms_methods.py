"""The operations that need no pair, and dry runs of those that do: at a real daemon, on both sockets."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kpcache import Client
from kpcache.errors import DryRunOperationException, InvalidCiphertextException, UnsupportedOperationException
from tests.system.harness import Daemon, pools, running

KEY = "alias/kpcache"
SPEC = "ECC_NIST_P256"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder: Path = tmp_path_factory.mktemp("kms")
    with running(folder, pools(**{SPEC: 4})) as daemon:
        daemon.wait_full()
        yield daemon


@pytest.fixture(params=["socket", "admin_socket"])
def client(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[Client]:
    with Client(getattr(daemon, request.param)) as client:
        yield client


def test_a_stored_private_key_gets_another_context_without_being_seen(client: Client) -> None:
    before, after = {"app": "billing", "e\u0301": ""}, {"app": "archive", "é": ""}
    pair = client.generate_data_key_pair(KeyId=KEY, KeyPairSpec=SPEC, EncryptionContext=before)
    blob = pair["PrivateKeyCiphertextBlob"]
    moved = client.re_encrypt(
        CiphertextBlob=blob,
        SourceEncryptionContext=dict(reversed(before.items())),
        DestinationKeyId=pair["KeyId"],
        DestinationEncryptionContext=after,
    )
    assert pair["PrivateKeyPlaintext"] not in moved["CiphertextBlob"]
    assert moved["SourceKeyMaterialId"] == moved["DestinationKeyMaterialId"] == pair["KeyMaterialId"]
    opened = client.decrypt(CiphertextBlob=moved["CiphertextBlob"], EncryptionContext=after)
    assert opened["Plaintext"] == pair["PrivateKeyPlaintext"]
    wrong: list[dict[str, str]] = [before, {}, {"app": "archive", "e\u0301": ""}]
    for context in wrong:
        with pytest.raises(InvalidCiphertextException):
            client.decrypt(CiphertextBlob=moved["CiphertextBlob"], EncryptionContext=context)


def test_what_encrypt_closes_decrypt_opens_and_no_context_is_an_empty_one(client: Client) -> None:
    closed = client.encrypt(KeyId=KEY, Plaintext=b"\0" * 4096, EncryptionContext={})
    assert set(closed) == {"CiphertextBlob", "KeyId", "EncryptionAlgorithm"}
    assert client.decrypt(CiphertextBlob=closed["CiphertextBlob"])["Plaintext"] == b"\0" * 4096


def test_dry_runs_use_no_pair_and_hand_out_nothing(daemon: Daemon, client: Client) -> None:
    def taken() -> Any:
        pool = daemon.status()["pools"][SPEC]
        return pool["issued"], pool["discarded"], pool["dry"]

    before = taken()
    blob = client.encrypt(KeyId=KEY, Plaintext=b"text")["CiphertextBlob"]
    calls: list[tuple[Callable[..., object], dict[str, Any]]] = [
        (client.generate_data_key_pair, {"KeyId": KEY, "KeyPairSpec": SPEC}),
        (client.generate_data_key_pair_without_plaintext, {"KeyId": KEY, "KeyPairSpec": SPEC}),
        (client.encrypt, {"KeyId": KEY, "Plaintext": b"text"}),
        (client.decrypt, {"CiphertextBlob": blob}),
        (client.re_encrypt, {"CiphertextBlob": blob, "DestinationKeyId": KEY}),
        (client.decrypt, {"KeyId": KEY, "DryRunModifiers": ["IGNORE_CIPHERTEXT"]}),
    ]
    for call, members in calls:
        with pytest.raises(DryRunOperationException):
            call(**members, DryRun=True)
    assert taken() == before


def test_a_recipient_is_never_ignored(client: Client) -> None:
    recipient = {"AttestationDocument": b"cose", "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256"}
    for dry_run in (False, True):
        with pytest.raises(UnsupportedOperationException, match="Recipient"):
            client.generate_data_key_pair(KeyId=KEY, KeyPairSpec=SPEC, Recipient=recipient, DryRun=dry_run)
