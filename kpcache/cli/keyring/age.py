"""Exports as age files (age-encryption.org/v1), armored: whoever has the secret opens one with any age tool,
without kpcache.

In the daemon this would stop every client: pyrage holds the GIL while scrypt works, measured 3 to 5 s.
"""

import base64
from collections.abc import Callable, Sequence
from typing import Final

from kpcache.cli.output import UsageError
from kpcache.errors import KpcacheError

Transform = Callable[[bytes], bytes]
_BEGIN: Final = b"-----BEGIN AGE ENCRYPTED FILE-----"
_END: Final = b"-----END AGE ENCRYPTED FILE-----"
_VERSION_LINE: Final = b"age-encryption.org/v1\n"


class ExportFileError(KpcacheError):
    """An export cannot be opened: the message says why and what to do."""


def to_passphrase(passphrase: str) -> Transform:
    """Encrypts under a passphrase, by scrypt: takes some seconds at each call."""

    def encrypt(document: bytes) -> bytes:
        from pyrage import passphrase as by_passphrase

        encrypted: bytes = by_passphrase.encrypt(document, passphrase, armored=True)
        return encrypted

    return encrypt


def to_recipients(names: Sequence[str]) -> Transform:
    """Encrypts so that each of these recipients (``age1…``, X25519) can open it. Raises ``UsageError``."""
    import pyrage

    recipients = []
    for name in names:
        if name.upper().startswith("AGE-SECRET-KEY-"):
            raise UsageError(
                "--recipient: that is an identity, which is secret and by now in this shell's history: make "
                "another one, and give its age1…, which age-keygen -y shows"
            )
        try:
            recipients.append(pyrage.x25519.Recipient.from_str(name))
        except pyrage.RecipientError as error:
            raise UsageError(
                f"--recipient {name}: is no age1… of an X25519 identity ({error}); age-keygen -y shows one's"
            ) from None

    def encrypt(document: bytes) -> bytes:
        encrypted: bytes = pyrage.encrypt(document, recipients, armored=True)
        return encrypted

    return encrypt


def from_passphrase(passphrase: str) -> Transform:
    """Opens what a passphrase was used for. The transform raises ``ExportFileError``."""

    def decrypt(data: bytes) -> bytes:
        import pyrage

        try:
            document: bytes = pyrage.passphrase.decrypt(data, passphrase)
        except pyrage.DecryptError as error:
            raise ExportFileError(
                f"not opened ({error}): the passphrase is another, or the file is damaged"
            ) from None
        return document

    return decrypt


def from_identities(names: Sequence[str]) -> Transform:
    """Opens what is for one of these identities (``AGE-SECRET-KEY-1…``). Raises ``UsageError``, and the
    transform ``ExportFileError``; no message shows an identity."""
    import pyrage

    try:
        identities = [pyrage.x25519.Identity.from_str(name) for name in names]
    except pyrage.IdentityError as error:
        raise UsageError(f"--identity: one of its lines is no identity: {error}") from None

    def decrypt(data: bytes) -> bytes:
        try:
            document: bytes = pyrage.decrypt(data, identities)
        except pyrage.DecryptError as error:
            raise ExportFileError(
                f"not opened ({error}): the export is for another identity, or the file is damaged"
            ) from None
        return document

    return decrypt


def needs_passphrase(data: bytes) -> bool:
    """Whether an age file was made with a passphrase; else it is for recipients.

    Raises ``ExportFileError`` for what is no age file, or one that was cut off.
    """
    armored = data.strip()
    if armored.startswith(_BEGIN):
        if not armored.endswith(_END):
            raise ExportFileError("cut off: its last line is not there; take another copy of this export")
        try:
            data = base64.b64decode(b"".join(armored.splitlines()[1:-1]), validate=True)
        except ValueError:
            raise ExportFileError("damaged: it is not base64; take another copy of this export") from None
    if not data.startswith(_VERSION_LINE):
        raise ExportFileError("not an age file, so not what kpcache keyring export wrote")
    # A passphrase's stanza is always alone: age-encryption.org/v1, "scrypt recipient stanza".
    return data.startswith(b"-> scrypt ", len(_VERSION_LINE))
