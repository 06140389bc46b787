"""A small threaded stand-in for the daemon: it speaks the wire protocol, makes real (quick) pairs, and
misbehaves on demand. One thread per connection; everything ends with ``close``.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgpack
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from kpcache.errors import (
    InvalidCiphertextException,
    KpcacheError,
    ThrottlingException,
    UnsupportedOperationException,
)

KEY_ID = "00000000-0000-4000-8000-000000000001"
KEY_ARN = f"arn:aws:kms:local:000000000000:key/{KEY_ID}"
MATERIAL_ID = "ab" * 32

Answer = dict[str, Any]
# What a fault gets: the request's number on this server (from 1) and its msgid. It returns None to have
# the request answered as usual, or pieces to write instead, each in a send of its own; after
# them the connection is closed.
Fault = Callable[[int, int], Iterable[bytes] | None]


def make_pair(spec: str) -> tuple[bytes, bytes]:
    """A new pair, made now: (PKCS#8, SPKI)."""
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    match spec:
        case "RSA_2048":
            key = rsa.generate_private_key(65537, 2048)
        case "ECC_NIST_P256":
            key = ec.generate_private_key(ec.SECP256R1())
        case "ECC_NIST_EDWARDS25519":
            key = ed25519.Ed25519PrivateKey.generate()
        case _:
            raise UnsupportedOperationException(f"the fake server makes no {spec}")
    return (
        key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    )


class FakeServer:
    """Serves on ``path`` from the moment it is made."""

    def __init__(self, path: Path, *, fault: Fault | None = None) -> None:
        self.path = path
        self.fault = fault
        self.requests: list[tuple[str, list[Any]]] = []
        self.connections = 0
        self.draining = False
        self.dry_after: int | None = None
        self.status: Answer = status()
        self._wrapped: dict[bytes, tuple[bytes, dict[str, str]]] = {}
        self._lock = threading.Lock()
        self._live: list[tuple[socket.socket, threading.Thread]] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop as a killed daemon does, except that the socket file goes too. Joins every thread."""
        if self._listener.fileno() < 0:
            return
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        self.path.unlink()
        self.cut_connections()

    def cut_connections(self) -> None:
        """Close every connection; the listener stays."""
        with self._lock:
            live, self._live = self._live, []
        for connection, thread in live:
            with contextlib.suppress(OSError):  # the other side closed first
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            with self._lock:
                self.connections += 1
                self._live.append((connection, thread))
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        unpacker = msgpack.Unpacker()
        try:
            while data := connection.recv(65536):
                unpacker.feed(data)
                for _, msgid, method, params in unpacker:
                    if not self._reply(connection, msgid, method, params):
                        connection.shutdown(socket.SHUT_RDWR)
                        return
        except OSError:
            return  # cut, by either side

    def _reply(self, connection: socket.socket, msgid: int, method: str, params: list[Any]) -> bool:
        with self._lock:
            self.requests.append((method, params))
            number = len(self.requests)
        pieces = self.fault(number, msgid) if self.fault else None
        if pieces is not None:
            for piece in pieces:
                connection.sendall(piece)
            return False
        connection.sendall(encode_answer(msgid, *self._answer(method, params[0])))
        return True

    def _answer(self, method: str, members: Answer) -> tuple[Answer | None, Answer | None]:
        try:
            if self.draining:
                raise ThrottlingException("the daemon is stopping", reason="draining", retry_after_s=1.0)
            return None, self._result(method, members)
        except KpcacheError as error:
            return error.to_wire(), None

    def _result(self, method: str, members: Answer) -> Answer:
        match method:
            case "GenerateDataKeyPair":
                return self._pair(members)
            case "GenerateDataKeyPairWithoutPlaintext":
                answer = self._pair(members)
                del answer["PrivateKeyPlaintext"]
                return answer
            case "Decrypt":
                plaintext, context = self._wrapped.get(members["CiphertextBlob"], (b"", None))
                if context != members.get("EncryptionContext", {}):
                    raise InvalidCiphertextException
                return {
                    "KeyId": KEY_ARN,
                    "Plaintext": plaintext,
                    "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
                    "KeyMaterialId": MATERIAL_ID,
                }
            case "DescribeKey":
                return {"KeyMetadata": {"KeyId": KEY_ID, "Arn": KEY_ARN, "CreationDate": 1.5}}
            case "kpcache.Ping":
                return {"ProtocolVersion": 1, "Version": "0", "MaxMessageBytes": 65536}
            case "kpcache.Status":
                return self.status
        raise UnsupportedOperationException(f"no method {method}")

    def _pair(self, members: Answer) -> Answer:
        if self.dry_after is not None:
            if self.dry_after == 0:
                raise ThrottlingException("no pair at hand", reason="pool_dry", retry_after_s=0.5)
            self.dry_after -= 1
        private, public = make_pair(members["KeyPairSpec"])
        blob = os.urandom(64)
        self._wrapped[blob] = (private, members.get("EncryptionContext", {}))
        return {
            "PrivateKeyCiphertextBlob": blob,
            "PrivateKeyPlaintext": private,
            "PublicKey": public,
            "KeyId": KEY_ARN,
            "KeyPairSpec": members["KeyPairSpec"],
            "KeyMaterialId": MATERIAL_ID,
        }


def encode_answer(msgid: int, error: Answer | None, result: Answer | None) -> bytes:
    encoded: bytes = msgpack.packb([1, msgid, error, result])
    return encoded


def status(held: int = 8, target: int = 8) -> Answer:
    """A daemon's status with one pool of ``target`` pairs, ``held`` of them there."""
    pool = {
        "ready": min(held, 2), "held": max(held - 2, 0), "target": target, "low_water": target // 4,
        "issued": 3, "dry": 1, "generated": held + 3, "discarded": 0, "in_hand": 0, "waiting": 0,
    }  # fmt: skip
    return {
        "version": "0", "ready": held >= target // 4, "full": held >= target, "issuing": True,
        "refill": {"makers": 0, "allowed": 0, "holding_back": False}, "ready_level": "low_water",
        "clone_guard": "none", "quiesced": False,
        "config": {
            "file": "", "last_reload": {"at": None, "successful": True, "error": ""}, "waits_for_restart": [],
        },
        "draining": False, "uptime_s": 1.0, "pools": {"ECC_NIST_P256": pool},
        "discarded": {"ECC_NIST_P256": {}},
        "workers": [
            {"role": "shard", "shard": 0, "maker": None, "pid": 7, "state": "up", "restarts": 0, "reason": ""}
        ],
        "connections": 1,
        "reserve": {
            "on": False, "why": "not here", "restored": 0, "burnt_last_restart": 0, "burnt_is_exact": True,
        },
        "memory": {
            "wiped_on_free": True, "dumpable": False, "core_limit": 0, "locked": False, "swap": "none",
        },
        "ledger": {
            "id": "ab", "tags": 3, "bytes": 4096, "available": True, "fault": "", "rolled_back": "",
            "waiting": 0,
        },
        "alarm": None,
        "keyring": {
            "default_alias": "alias/kpcache", "default_key_arn": KEY_ARN, "keys": 1, "revision": 1,
            "exported_revision": 0, "unexported_changes": 1, "sealed": "file", "fault": "",
            "default_key_state": "Enabled",
        },
    }  # fmt: skip
