"""AWS KMS as far as the keyring's seal needs it: Encrypt and Decrypt over HTTP on loopback, and its failures.

The SDK is the real one; it is led here by ``environ``. What this checks as KMS does: the signature is there
(not whether it is right), the key, the encryption context.
"""

import base64
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

ARN: Final = "arn:aws:kms:eu-central-1:111122223333:key/0123abcd-12ab-34cd-56ef-1234567890ab"
OTHER_ARN: Final = "arn:aws:kms:eu-central-1:111122223333:key/ffffffff-12ab-34cd-56ef-1234567890ab"
ALIAS: Final = "alias/seal"
OTHER_ALIAS: Final = "alias/other"
_KEYS: Final = {ARN: ARN, OTHER_ARN: OTHER_ARN, ALIAS: ARN, OTHER_ALIAS: OTHER_ARN}


class FakeKms:
    """One region of AWS KMS with two keys. ``asked`` has the operations in order, with their members."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.fails: dict[str, tuple[int, bytes]] = {}  # an operation, or "" for all: status, body
        self.hangs = threading.Event()
        self.arrived = threading.Event()
        self.released = threading.Event()
        self._wrapped: dict[bytes, tuple[str, Any, bytes]] = {}

    @property
    def environ(self) -> dict[str, str]:
        """What leads an SDK here, and nowhere else for credentials."""
        return {
            "AWS_ENDPOINT_URL_KMS": self.endpoint,
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def fail(self, code: str, message: str = "", *, on: str = "", status: int = 400) -> None:
        """Answer so from now on, one operation or all."""
        self.fails[on] = status, json.dumps({"__type": code, "message": message}).encode()

    @property
    def secrets(self) -> list[bytes]:
        """Every data key that was ever sent here."""
        return [base64.b64decode(members["Plaintext"]) for _, members in self.asked if "Plaintext" in members]

    def answer(self, target: str, members: dict[str, Any], signed: bool) -> tuple[int, bytes]:
        """Status and body."""
        service, _, operation = target.partition(".")
        assert (service, signed) == ("TrentService", True)
        self.asked.append((operation, members))
        self.arrived.set()
        if self.hangs.is_set():
            self.released.wait()
        failure = self.fails.get(operation) or self.fails.get("")
        if failure is not None:
            return failure
        arn = _KEYS.get(members["KeyId"])
        if arn is None:
            return _error("NotFoundException", f"Key {members['KeyId']!r} does not exist")
        return self._encrypt(arn, members) if operation == "Encrypt" else self._decrypt(arn, members)

    def _encrypt(self, arn: str, members: dict[str, Any]) -> tuple[int, bytes]:
        blob = os.urandom(152)
        plaintext = base64.b64decode(members["Plaintext"])
        self._wrapped[blob] = arn, members["EncryptionContext"], plaintext
        return _result(CiphertextBlob=_base64(blob), KeyId=arn)

    def _decrypt(self, arn: str, members: dict[str, Any]) -> tuple[int, bytes]:
        known = self._wrapped.get(base64.b64decode(members["CiphertextBlob"]))
        if known is None or known[1] != members["EncryptionContext"]:
            return _error("InvalidCiphertextException", "")
        if known[0] != arn:
            return _error("IncorrectKeyException", "The key ID in the request does not identify a CMK")
        return _result(Plaintext=_base64(known[2]), KeyId=arn)


@contextmanager
def fake_kms() -> Iterator[FakeKms]:
    """A server until the end of the block; then whatever hangs is let go."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            members = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            signed = self.headers.get("Authorization", "").startswith("AWS4-HMAC-SHA256 ")
            status, body = kms.answer(self.headers["X-Amz-Target"], members, signed)
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except ConnectionError:
                pass  # who asked was killed meanwhile

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = False
        kms = FakeKms(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield kms
        finally:
            kms.released.set()
            server.shutdown()
            thread.join()


def _result(**members: str) -> tuple[int, bytes]:
    return 200, json.dumps({**members, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}).encode()


def _error(code: str, message: str) -> tuple[int, bytes]:
    return 400, json.dumps({"__type": code, "message": message}).encode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
