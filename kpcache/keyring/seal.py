"""The keyring file at rest: sealed under what is not on the same disk, where that is given.

A sealed file is one JSON object: ``format`` "kpcache sealed keyring", ``version`` 1, ``unlock`` (the mode),
``kdf`` (see that module, and ``data_key``), ``nonce`` (12 bytes, base64) and ``ciphertext`` (base64): the
plain file's bytes under AES-256-GCM-SIV (RFC 8452), with all the other fields, as JSON with sorted keys, no
spaces and ASCII only, as associated data. The key is derived, or asked for, once a start; a nonce is drawn
from the kernel for each write.

It keeps out who gets the disk or a backup, not who can read this process or the secret.
"""

import base64
import contextlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from kpcache.errors import ConfigError
from kpcache.keyring import data_key, kdf
from kpcache.keyring.document import DocumentError, require_version
from kpcache.keyring.files import check_owner_and_mode

FORMAT: Final = "kpcache sealed keyring"
VERSION: Final = 1
NONCE_BYTES: Final = 12
CREDENTIAL: Final = "kpcache-keyring"
MIN_CREDENTIAL_BYTES: Final = 32
MIN_PASSPHRASE_CHARACTERS: Final = 12
_MAX_SECRET_BYTES: Final = 65536
# The modes that seal, and how the setting says each.
_SETTINGS: Final[Mapping[str, str]] = {
    "credential": "credential",
    "passphrase-file": "passphrase-file",
    data_key.NAME: f"{data_key.NAME}:KEY",
}
_FIELDS: Final = {"format", "version", "unlock", "kdf", "nonce", "ciphertext"}
_STORED: Final = f"/etc/credstore.encrypted/{CREDENTIAL}"
_LOAD_CREDENTIAL: Final = (
    f"make one with: head -c 32 /dev/urandom | systemd-creds encrypt --name={CREDENTIAL} - {_STORED}; "
    f"load it in the unit with: LoadCredentialEncrypted={CREDENTIAL}:{_STORED}"
)


@dataclass(frozen=True, slots=True)
class Unlock:
    """What opens the keyring file. ``mode`` is "file" (it is plain), "credential", "passphrase-file", or
    "aws-kms", and then ``wrapper`` is there and the key comes from it.

    ``credentials`` is the folder where systemd puts this service's, if it does.
    """

    mode: str = "file"
    passphrase_file: Path | None = None
    credentials: Path | None = None
    wrapper: data_key.Wrapper | None = None

    @classmethod
    def from_settings(cls, unlock: str, passphrase_file: str, environ: Mapping[str, str]) -> "Unlock":
        """From the settings of [keyring], checked, and the environment, where systemd names its folder.

        Not for "aws-kms": see ``daemon/aws_unlock``.
        """
        credentials = environ.get("CREDENTIALS_DIRECTORY")
        return cls(
            unlock,
            Path(passphrase_file) if passphrase_file else None,
            Path(credentials) if credentials else None,
        )

    def fresh_key(self, urandom: Callable[[int], bytes]) -> tuple[kdf.Kdf, bytes]:
        """A new key for the file, and what the file tells of it; not for mode "file".

        Raises ``ConfigError`` with the cure.
        """
        if self.wrapper is not None:
            return data_key.fresh(self.wrapper, urandom)
        parameters = kdf.fresh(guessable=self.mode == "passphrase-file", urandom=urandom)
        return parameters, self.key(parameters)

    def key(self, told: kdf.Kdf) -> bytes:
        """The key of which the file tells this. Raises ``DocumentError``; ``ConfigError`` with the cure."""
        if self.wrapper is not None:
            return data_key.opened(told, self.wrapper)
        return kdf.derive(told, self.secret())

    def secret(self) -> bytes:
        """What the key is derived from, in the modes where it is. Raises ``ConfigError`` with the cure."""
        return self._credential() if self.mode == "credential" else self._passphrase()

    @property
    def source(self) -> str:
        """Where the secret or the key comes from, for a message."""
        if self.wrapper is not None:
            return self.wrapper.source
        if self.mode == "credential":
            return f"systemd's credential {CREDENTIAL}"
        return f"the passphrase in {self.passphrase_file}"

    def _credential(self) -> bytes:
        if self.credentials is None:
            raise ConfigError(
                'keyring.unlock = "credential": systemd gives this process no credentials '
                f"($CREDENTIALS_DIRECTORY is not set); {_LOAD_CREDENTIAL}"
            )
        path = self.credentials / CREDENTIAL
        # systemd lets the service's user in by an access list, whose mode bits look like the group's.
        _, secret = _read(path, f'keyring.unlock = "credential": {path}', _LOAD_CREDENTIAL)
        if len(secret) < MIN_CREDENTIAL_BYTES:
            raise ConfigError(
                f"{path}: {len(secret)} bytes are too few, it must have {MIN_CREDENTIAL_BYTES} random ones; "
                f"{_LOAD_CREDENTIAL}"
            )
        return secret

    def _passphrase(self) -> bytes:
        path = self.passphrase_file
        if path is None:
            raise ConfigError(f'keyring.unlock = "{self.mode}": keyring.passphrase_file must name a file')
        status, data = _read(path, f"keyring.passphrase_file: {path}", "put the passphrase there, mode 0600")
        check_owner_and_mode(status, path, forbidden=0o077, cure="600")
        secret = data.removesuffix(b"\n")
        characters = len(secret.decode(errors="replace"))
        if characters < MIN_PASSPHRASE_CHARACTERS:
            raise ConfigError(
                f"{path}: a passphrase of {characters} characters is soon guessed; "
                f"take {MIN_PASSPHRASE_CHARACTERS} or more"
            )
        return secret


def _read(path: Path, place: str, cure: str) -> tuple[os.stat_result, bytes]:
    """A file's bytes, and its status. ``place`` and ``cure`` are for the message of the ``ConfigError``."""
    try:
        # O_NONBLOCK: opening a FIFO put there would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"{place} is not a regular file; {cure}")
            data = file.read(_MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{place} cannot be read ({error.strerror or error}); {cure}") from error
    if len(data) > _MAX_SECRET_BYTES:
        raise ConfigError(f"{place} has more than {_MAX_SECRET_BYTES} bytes; {cure}")
    return status, data


class Sealer:
    """Between the bytes of a document and those of the file. Keeps the key once it has it."""

    def __init__(self, unlock: Unlock, urandom: Callable[[int], bytes]) -> None:
        self.mode = unlock.mode
        self._unlock = unlock
        self._urandom = urandom
        self._known: tuple[kdf.Kdf, AESGCMSIV] | None = None

    def seal(self, data: bytes) -> bytes:
        """The file's bytes for a document's; the same ones in mode "file". Raises ``ConfigError``."""
        if self.mode == "file":
            return data
        if self._known is None:
            told, key = self._unlock.fresh_key(self._urandom)
            self._known = told, AESGCMSIV(key)
        told, cipher = self._known
        nonce = self._urandom(NONCE_BYTES)
        fields = {
            "format": FORMAT,
            "version": VERSION,
            "unlock": self.mode,
            "kdf": told,
            "nonce": base64.b64encode(nonce).decode("ascii"),
        }
        ciphertext = cipher.encrypt(nonce, data, _canonical(fields))
        fields["ciphertext"] = base64.b64encode(ciphertext).decode("ascii")
        return json.dumps(fields, indent=1).encode("ascii") + b"\n"

    def open(self, data: bytes) -> tuple[bytes, bool]:
        """The document's bytes, and whether the file was sealed; a plain one is returned as it is.

        Raises ``DocumentError`` for a sealed file that is damaged, and ``ConfigError`` with the cure for
        one that opens with something else than what is given.
        """
        fields = _sealed_fields(data)
        if fields is None:
            return data, False
        if fields["unlock"] != self.mode:
            raise ConfigError(_other_mode(fields["unlock"], self.mode))
        ciphertext = kdf.from_base64(fields.pop("ciphertext"), "ciphertext")
        nonce = kdf.from_base64(fields["nonce"], "nonce")
        if len(nonce) != NONCE_BYTES:
            raise DocumentError(f"nonce does not have {NONCE_BYTES} bytes")
        try:
            return self._cipher(fields["kdf"]).decrypt(nonce, ciphertext, _canonical(fields)), True
        except InvalidTag:
            raise ConfigError(
                f"it does not open with {self._unlock.source}: give the secret that it was sealed with; "
                "if that is the one, the file is damaged: restore it from its backup"
            ) from None

    def _cipher(self, told: kdf.Kdf) -> AESGCMSIV:
        if self._known is None or self._known[0] != told:
            self._known = told, AESGCMSIV(self._unlock.key(told))
        return self._known[1]


def _sealed_fields(data: bytes) -> dict[str, Any] | None:
    """The object that a sealed file is; None for any other bytes. Raises ``DocumentError``."""
    file: object = None
    # Suppressed, not chained: the error would carry the whole file.
    with contextlib.suppress(ValueError, RecursionError):
        file = json.loads(data)
    if not isinstance(file, dict) or file.get("format") != FORMAT:
        return None
    require_version(file, VERSION)
    if file.keys() != _FIELDS or type(file["unlock"]) is not str:
        raise DocumentError(f"it does not have exactly the fields {', '.join(sorted(_FIELDS))}")
    return file


def _other_mode(found: str, given: str) -> str:
    known = _SETTINGS.get(found, "another mode")
    return (
        f'it is sealed and opens with keyring.unlock = "{known}", not "{_SETTINGS.get(given, given)}"; to '
        "change that, start with the one that opens it, export the keyring (kpcache keyring export), and "
        "import it into an empty daemon.state_dir under the other"
    )


def _canonical(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("ascii")
