"""Tools that are not ours: a MessagePack-RPC client from the registry, and the openssl command."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpcache.core.specs import MAKEABLE
from kpcache.errors import InvalidCiphertextException
from tests.system.harness import Daemon, running

# What Debian 12's OpenSSL 3.0 knows; ML-KEM came with 3.5.
KNOWN_TO_OPENSSL = [spec for spec in MAKEABLE if not spec.startswith("ML_KEM")]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("foreign"), "[requests]\nwait_timeout_s = 30.0\n") as daemon:
        yield daemon


# Neovim's MessagePack-RPC session, in a program of its own, which knows nothing of kpcache.
NEOVIM_CLIENT = """
import sys
from pynvim.msgpack_rpc import socket_session
session = socket_session(sys.argv[1])
context = {"app": "billing"}
answer = session.request("GenerateDataKeyPair",
    {"KeyId": "alias/kpcache", "KeyPairSpec": "RSA_2048", "EncryptionContext": context})
opened = session.request("Decrypt",
    {"CiphertextBlob": answer["PrivateKeyCiphertextBlob"], "EncryptionContext": context})
print(answer["KeyPairSpec"], session.request("kpcache.Ping")["ProtocolVersion"],
    opened["Plaintext"] == answer["PrivateKeyPlaintext"])
"""


def test_a_client_that_is_not_ours_gets_a_pair(daemon: Daemon) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NEOVIM_CLIENT, daemon.socket],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "RSA_2048 1 True\n", done.stderr


def openssl(*arguments: str, data: bytes) -> bytes:
    done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("spec", KNOWN_TO_OPENSSL)
def test_openssl_reads_the_private_key_and_derives_the_same_public_key(daemon: Daemon, spec: str) -> None:
    with daemon.client() as client:
        answer = client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=spec, wait_s=30.0)
    private = answer["PrivateKeyPlaintext"]
    derived = openssl("pkey", "-inform", "DER", "-pubout", "-outform", "DER", data=private)
    assert derived == answer["PublicKey"]
    if spec.startswith("RSA"):
        assert b"RSA key ok" in openssl("rsa", "-inform", "DER", "-check", "-noout", data=private)
    else:
        openssl("pkey", "-inform", "DER", "-check", "-noout", data=private)


@pytest.mark.parametrize("spec", MAKEABLE)
def test_decrypt_gives_the_private_key_back_with_the_same_context_only(daemon: Daemon, spec: str) -> None:
    context = {"app": "billing", "purpose": "test"}
    with daemon.client() as client:
        answer = client.generate_data_key_pair(
            KeyId="alias/kpcache", KeyPairSpec=spec, EncryptionContext=context, wait_s=30.0
        )
        blob = answer["PrivateKeyCiphertextBlob"]
        opened = client.decrypt(CiphertextBlob=blob, EncryptionContext=dict(reversed(context.items())))
        assert opened["Plaintext"] == answer["PrivateKeyPlaintext"]
        assert opened["KeyId"] == answer["KeyId"]
        for wrong in ({}, {"app": "billing"}, {**context, "app": "Billing"}, {**context, "more": ""}):
            with pytest.raises(InvalidCiphertextException):
                client.decrypt(CiphertextBlob=blob, EncryptionContext=wrong)
        damaged = blob[:-1] + bytes([blob[-1] ^ 1])
        with pytest.raises(InvalidCiphertextException):
            client.decrypt(CiphertextBlob=damaged, EncryptionContext=context)


def test_command_line_from_get_to_decrypt(daemon: Daemon, tmp_path: Path) -> None:
    """The answer of ``get`` goes into ``decrypt`` as it is, and openssl reads what comes out."""
    environment = {**os.environ, "KPCACHE_SOCKET": daemon.socket}
    kpcache = [sys.executable, "-m", "kpcache"]
    got = subprocess.run(
        [*kpcache, "get", "RSA_2048", "--context", "app=billing"],
        env=environment,
        capture_output=True,
        check=True,
    )
    path = tmp_path / "answer.json"
    path.write_bytes(got.stdout)
    opened = subprocess.run(
        [*kpcache, "decrypt", "--context", "app=billing", str(path)],
        env=environment,
        capture_output=True,
        check=True,
    )
    assert b"RSA key ok" in openssl("rsa", "-inform", "DER", "-check", "-noout", data=opened.stdout)
    refused = subprocess.run(
        [*kpcache, "decrypt", str(path)], env=environment, capture_output=True, check=False
    )
    assert refused.returncode == 1
    assert b"InvalidCiphertextException" in refused.stderr
    assert refused.stdout == b""
