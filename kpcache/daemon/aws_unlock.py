"""``[keyring].unlock = "aws-kms:KEY"``: AWS KMS is asked by a program of its own, once at a start.

The daemon never loads boto3; see ``worker/aws_unlock``. Blocking: for before the loop runs, or without one.
"""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

from kpcache.core.config_rules import UNLOCK_BY_AWS
from kpcache.core.pipe import FrameReader, PipeError, encode
from kpcache.core.settings import KeyringSettings
from kpcache.core.text import printable
from kpcache.errors import ConfigError
from kpcache.keyring import data_key
from kpcache.keyring.data_key import WrappedKey
from kpcache.keyring.seal import Unlock
from kpcache.worker import process

_WORKER: Final = "kpcache.worker.aws_unlock"
# From the worker's start to its answer, credentials and all.
DEADLINE_S = 30.0
_KEPT: Final = frozenset(
    {"home", "http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "ssl_cert_file",
     "ssl_cert_dir"}
)  # fmt: skip

_CREDENTIALS: Final = (
    "give this user valid credentials, as any AWS SDK takes them (a role, ~/.aws, AWS_ACCESS_KEY_ID ...)"
)
_CLOCK: Final = "set this machine's clock right"
_CURES: Final[Mapping[str, str]] = {
    "NoSdk": f"install boto3 beside kpcache; run: {shlex.quote(sys.executable)} -m pip install boto3",
    "NoRegion": "set AWS_DEFAULT_REGION, or name the key by its ARN",
    "NoCredentials": _CREDENTIALS,
    "UnrecognizedClientException": _CREDENTIALS,
    "InvalidSignatureException": _CREDENTIALS,
    "ExpiredTokenException": _CREDENTIALS,
    "RequestExpired": _CLOCK,
    "Unreachable": "AWS KMS cannot be reached; see to network, proxy and endpoint, and start again",
    "AccessDeniedException": "allow these credentials kms:Encrypt and kms:Decrypt on this key",
    "NotFoundException": "see to the key's name, region and account",
    "DisabledException": "enable the key in AWS KMS",
    "KMSInvalidStateException": "make the key usable in AWS KMS; if its deletion is scheduled, cancel it",
    "IncorrectKeyException": "name the key that the file was sealed under",
    "InvalidCiphertextException": (
        "name the key that the file was sealed under; if this is the one, the file is damaged: restore it "
        "from its backup"
    ),
    "InvalidKeyUsageException": "name a symmetric key for encryption (SYMMETRIC_DEFAULT)",
}
_OF_A_WRONG_CLOCK: Final = ("Signature expired", "Signature not yet current")
_START_AGAIN: Final = "start again; if this stays, see what AWS says of this error"


def unlock_of(settings: KeyringSettings, environ: Mapping[str, str]) -> Unlock:
    """What opens the keyring file by the settings of [keyring]; no file is read and nobody is asked yet."""
    if settings.unlock.startswith(UNLOCK_BY_AWS):
        key = settings.unlock.removeprefix(UNLOCK_BY_AWS)
        return Unlock(data_key.NAME, wrapper=AwsKms(key, environ, DEADLINE_S))
    return Unlock.from_settings(settings.unlock, settings.passphrase_file, environ)


class AwsKms:
    """A ``data_key.Wrapper``: the symmetric AWS KMS key named ``key`` (id, ARN, alias or alias ARN)."""

    def __init__(self, key: str, environ: Mapping[str, str], deadline_s: float) -> None:
        """``environ`` is what the SDK finds region, credentials and endpoint in; ``deadline_s`` is for each
        question, from the start of the program that asks it."""
        self._key = key
        self._environ = environ
        self._deadline_s = deadline_s

    @property
    def source(self) -> str:
        return f"AWS KMS key {self._key}"

    def wrap(self, key: bytes) -> WrappedKey:
        match self._ask("wrap", key):
            case ["wrapped", bytes(blob), str(arn)]:
                return WrappedKey(blob, arn)
            case failure:
                raise self._error(failure)

    def unwrap(self, blob: bytes) -> bytes:
        match self._ask("unwrap", blob):
            case ["unwrapped", bytes(key)]:
                return key
            case failure:
                raise self._error(failure)

    def _error(self, failure: list[Any]) -> ConfigError:
        match failure:
            case ["failed", str(code), str(message)]:
                return self._refusal(f"{printable(code)}: {printable(message, 600)}; {_cure(code, message)}")
        return self._refusal(f"its worker answers with {printable(str(failure[0]))}; this is a defect")

    def _refusal(self, why: str) -> ConfigError:
        return ConfigError(f'keyring.unlock = "{UNLOCK_BY_AWS}{self._key}": {why}; the keyring is untouched')

    def _ask(self, method: str, data: bytes) -> list[Any]:
        """The worker's one answer. When this returns or raises, the worker has ended and is reaped."""
        # A socket, not a pipe: it names this process to the worker, which must not outlive it.
        ours, theirs = socket.socketpair()
        with ours, theirs, self._start(theirs.fileno()) as worker:
            theirs.close()
            try:
                # Should it have ended already, its status and last words say more than a broken pipe.
                with contextlib.suppress(ConnectionError):
                    ours.sendall(encode([method, self._key, data]))
                output, words = worker.communicate(timeout=self._deadline_s)
            except subprocess.TimeoutExpired:
                raise self._refusal(
                    f"no answer from AWS KMS within {self._deadline_s:g} s; see to network, proxy, endpoint "
                    "and credentials, and start again"
                ) from None
            finally:
                if worker.poll() is None:
                    # Its whole session: the SDK may have started a program that gives credentials.
                    os.killpg(worker.pid, signal.SIGKILL)
        return self._only(output, worker.returncode, words)

    def _start(self, stdin: int) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(  # noqa: S603 - this interpreter, and a module named here
                process.command(_WORKER),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env=environment(self._environ),
                start_new_session=True,
            )
        except OSError as error:
            raise self._refusal(f"its worker cannot be started ({error.strerror})") from error

    def _only(self, output: bytes, status: int, words: bytes) -> list[Any]:
        with contextlib.suppress(PipeError):
            messages = FrameReader().feed(output)
            if len(messages) == 1:
                return messages[0]
        last = words.decode(errors="replace").strip().rpartition("\n")[2]
        raise self._refusal(f"its worker ended without an answer (status {status}: {printable(last)})")


def _cure(code: str, message: str) -> str:
    # AWS has one code for a wrong secret and for a wrong clock (KMS API reference, "Common errors").
    if code == "InvalidSignatureException" and message.startswith(_OF_A_WRONG_CLOCK):
        return _CLOCK
    return _CURES.get(code, _START_AGAIN)


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """What the worker gets of the environment: what any does, and what the SDK finds its way by."""
    kept = {
        name: value for name, value in inherited.items() if name.startswith("AWS_") or name.lower() in _KEPT
    }
    return {**process.environment(inherited), **kept}
