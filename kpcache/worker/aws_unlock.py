"""Asks AWS KMS once: to wrap the key that seals the keyring file, or to open it; then ends.

A process of its own, since boto3 brings threads, tens of megabytes and logs that show what it sends, none
of which the daemon should have. The request comes over the socket that is its stdin, the answer goes to
its stdout, each as one frame of ``core/pipe``:

- ``["wrap", key, secret]``: the answer is ``["wrapped", blob, arn]``.
- ``["unwrap", key, blob]``: the answer is ``["unwrapped", secret]``.
- To either, ``["failed", code, message]``; ``code`` is one of AWS's or the SDK's, or a ``_Failure``'s here.

``key`` is a key id or ARN, an alias or its ARN. Region, credentials and endpoint are those that any AWS
SDK finds; an ARN names its region itself.
"""

import json
import logging
import os
import re
import socket
import sys
from typing import Any, Final

from kpcache.core.pipe import FrameReader, encode
from kpcache.worker import process

# Bound to what is wrapped here, so that nothing else which this key opens can be passed off as it.
CONTEXT: Final = {"kpcache": "keyring"}
# A try takes milliseconds; two that hang end within the asker's own deadline, and say more than it can.
_CONNECT_TIMEOUT_S: Final = 4
_READ_TIMEOUT_S: Final = 8
_MAX_ATTEMPTS: Final = 2
_RECEIVE_BYTES: Final = 65536
_MAX_TOLD: Final = 2000
_KEY_ARN: Final = re.compile(r"arn:[^:]+:kms:([^:]+):")


class _Failure(Exception):
    """What went wrong, with a code for whoever knows the cure."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def answer(request: list[Any]) -> list[Any]:
    """The answer to one request; never raises, and no failure tells anything that is secret."""
    try:
        import boto3.session
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        return ["failed", "NoSdk", str(error)]
    try:
        method, key, data = request
        session = boto3.session.Session()
        _find_credentials(session)
        client = _client(session, key)
        if method == "wrap":
            return _wrap(client, key, data)
        return ["unwrapped", _decrypt(client, key, data)]
    except _Failure as failure:
        return _failed(failure.code, str(failure))
    except ClientError as error:
        told = error.response.get("Error", {})
        return _failed(str(told.get("Code", "")), str(told.get("Message", "")))
    except BotoCoreError as error:
        return _failed(_code(error), str(error))
    except Exception as error:  # its text could be anything, what was sent included
        return _failed("Defect", type(error).__name__)


def _failed(code: str, message: str) -> list[Any]:
    """Cut, since what a server says may be longer than a frame; who asked shows less of it still."""
    return ["failed", code[:_MAX_TOLD], message[:_MAX_TOLD]]


def _find_credentials(session: Any) -> None:
    """Before anything else needs them, so that what goes wrong with a program or a file that gives them is
    told as that. Nothing of what it gives is: these errors' own texts could show it."""
    try:
        credentials = session.get_credentials()
        if credentials is not None:
            credentials.get_frozen_credentials()
    except OSError as error:
        absolute = "where it is a program (credential_process), name it by its absolute path"
        raise _Failure(
            "NoCredentials", f"{error.filename or 'reading them'}: {error.strerror}; {absolute}"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError):
        raise _Failure(
            "NoCredentials", "what gives them (credential_process?) prints something else than a JSON object"
        ) from None


def _client(session: Any, key: str) -> Any:
    """A KMS client in the region of ``key``, where that is an ARN."""
    from botocore.config import Config

    arn = _KEY_ARN.match(key)
    # ECS sets AWS_REGION, which other SDKs read and this one does not.
    region = arn[1] if arn else session.region_name or os.environ.get("AWS_REGION")
    config = Config(
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": _MAX_ATTEMPTS},
    )
    try:
        return session.client("kms", region_name=region, config=config)
    except ValueError as error:  # an endpoint that is no URL; the credentials are read already
        raise _Failure("Settings", str(error)) from None


def _wrap(client: Any, key: str, secret: bytes) -> list[Any]:
    wrapped = client.encrypt(KeyId=key, Plaintext=secret, EncryptionContext=CONTEXT)
    blob, arn = wrapped.get("CiphertextBlob", b""), wrapped.get("KeyId", "")
    # Before anything depends on it: credentials that may encrypt and not decrypt would make a file that
    # the next start cannot open.
    if _decrypt(client, key, blob) != secret:
        raise _Failure("BadAnswer", "what it encrypted does not open again")
    return ["wrapped", blob, arn]


def _decrypt(client: Any, key: str, blob: bytes) -> bytes:
    answered = client.decrypt(CiphertextBlob=blob, KeyId=key, EncryptionContext=CONTEXT)
    if not isinstance(plaintext := answered.get("Plaintext"), bytes):
        raise _Failure("BadAnswer", "it answers something else than a plaintext")
    return plaintext


def _code(error: Exception) -> str:
    """What kind of failure the SDK's own error is; its class's name where it is no kind of several."""
    from botocore import exceptions as sdk

    if isinstance(error, sdk.NoRegionError):
        return "NoRegion"
    if isinstance(error, (sdk.ConnectionError, sdk.HTTPClientError)):
        return "Unreachable"
    credentials = (
        sdk.NoCredentialsError, sdk.PartialCredentialsError, sdk.CredentialRetrievalError,
        sdk.TokenRetrievalError, sdk.SSOError, sdk.LoginError, sdk.ProfileNotFound,
    )  # fmt: skip
    return "NoCredentials" if isinstance(error, credentials) else type(error).__name__


def quiet() -> None:
    """Keep the SDK from logging what it sends, whatever level is set for all."""
    for name in ("boto3", "botocore", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _run(pipe: socket.socket) -> None:
    process.protect("kpcache-aws")
    process.die_with_parent(pipe)
    quiet()
    reader = FrameReader()
    while data := pipe.recv(_RECEIVE_BYTES):
        for request in reader.feed(data):
            sys.stdout.buffer.write(encode(answer(request)))
            sys.stdout.buffer.flush()
            return


def main() -> int:
    """Exit status: 0 when it has answered, 3 when it cannot run here (the reason is on stderr)."""
    # Off descriptor 0, which a program that the SDK asks for credentials would inherit.
    with socket.socket(fileno=os.dup(0)) as pipe, open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        try:
            _run(pipe)
        except process.StartError as error:
            print(error, file=sys.stderr)
            return process.EXIT_CANNOT_START
    return 0


if __name__ == "__main__":
    sys.exit(main())
