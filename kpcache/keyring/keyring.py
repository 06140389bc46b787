"""The keyring: an embedded KMS with local symmetric keys. Wraps private keys and opens what it wrapped.

KMS's names and recorded wordings are kept where a client sees them: ids, ARNs, aliases, states, errors.
For one thread (the daemon's loop); nothing here waits, or touches a file: that is ``vault``.
"""

import dataclasses
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import urandom as kernel_urandom
from typing import Any, NamedTuple

from kpcache.core import envelope
from kpcache.errors import DisabledException, KMSInvalidStateException, ValidationException
from kpcache.keyring import crypto, names, views
from kpcache.keyring.document import Document, KeyRecord


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it was when resolved. Which material wraps is settled only when it does."""

    key_id: str
    arn: str
    state: str


# For a key that is not here: looked into like another's, so that it takes as long (without it, 0.08 µs less).
_NO_SECRETS: Mapping[bytes, bytes | None] = {bytes(32): None}


class Wrapped(NamedTuple):
    """A blob, and the material that it was made with, 64 hex digits."""

    blob: bytes
    material_id: str


@dataclass(frozen=True, slots=True)
class Decrypted:
    """An opened blob. ``material_id`` is the one that the blob was made with, which need not be current."""

    key: Key
    plaintext: bytes = dataclasses.field(repr=False)
    material_id: str


class _Entry:
    """A key in use: its record, what clients see of it, its secrets by raw material id, its epoch if any."""

    __slots__ = ("epoch", "key", "material_id", "record", "secrets")

    def __init__(self, record: KeyRecord) -> None:
        self.record = record
        self.key = Key(record.key_id, names.key_arn(record.key_id), record.state)
        self.material_id = record.materials[-1].material_id
        self.secrets = {bytes.fromhex(item.material_id): item.secret for item in record.materials}
        self.epoch: crypto.Epoch | None = None


class Keyring:
    """Keys, aliases and their epochs, as the content in force says."""

    def __init__(
        self,
        content: Document,
        monotonic: Callable[[], float] = time.monotonic,
        urandom: Callable[[int], bytes] = kernel_urandom,
    ) -> None:
        """Use an already durable ``content``. ``monotonic`` gives seconds, ``urandom`` the kernel's bytes.

        Raises ``ConfigError`` where the installed OpenSSL cannot do it.
        """
        crypto.require_support()
        self._monotonic = monotonic
        self._urandom = urandom
        self._by_id: dict[str, _Entry] = {}
        self.adopt(content)

    @property
    def content(self) -> Document:
        """What is in force."""
        return self._content

    def adopt(self, content: Document) -> None:
        """Bring a new, already durable ``content`` into force: what it lacks can be used no more.

        A key whose current material stays goes on with its epoch: administration ends none early.
        """
        entries = {record.key_id: _Entry(record) for record in content.keys}
        for key_id, entry in entries.items():
            before = self._by_id.get(key_id)
            if before is not None and before.material_id == entry.material_id:
                entry.epoch = before.epoch
        self._content = content
        self._by_id = entries
        self._secrets: dict[bytes, Mapping[bytes, bytes | None]] = {
            uuid.UUID(key_id).bytes: entry.secrets for key_id, entry in entries.items()
        }
        self._by_raw_id = {uuid.UUID(key_id).bytes: entry for key_id, entry in entries.items()}
        # All four forms of a KeyId in one look-up.
        self._names: dict[str, Key] = {}
        for entry in entries.values():
            self._names[entry.key.key_id] = self._names[entry.key.arn] = entry.key
        for alias, key_id in content.aliases.items():
            self._names[alias] = self._names[names.ARN_PREFIX + alias] = entries[key_id].key

    def resolve(self, key_id: str) -> Key:
        """The key for a key id, key ARN, alias or alias ARN, in any state. Raises ``NotFoundException``."""
        key = self._names.get(key_id)
        if key is None:
            raise names.not_found(key_id)
        return key

    def key_of(self, blob: bytes) -> Key | None:
        """The key that the blob says it was made under, if that is one of these; nothing of it is verified.

        Raises ``InvalidCiphertextException`` for a length that no blob has.
        """
        sealed = envelope.parse(blob)
        entry = self._by_raw_id.get(sealed.key_id) if sealed.is_ours else None
        return entry.key if entry is not None else None

    def describe(self, key: Key) -> dict[str, Any]:
        """KMS's KeyMetadata. Times are Unix seconds. Raises ``NotFoundException``."""
        return views.key_metadata(self._entry(key).record)

    def encrypt(self, key: Key, plaintext: bytes, context: Mapping[str, str]) -> Wrapped:
        """Wrap 1 to 4096 bytes: the blob is 145 bytes longer; ``core/envelope`` has its format.

        The key is used as it is now, in whatever state and with whatever material it was resolved.

        Raises ``ValidationException`` for a length outside that or a context without a UTF-8 form, and
        ``NotFoundException``, ``DisabledException`` or ``KMSInvalidStateException`` for the key.
        """
        entry = self._entry(key)
        require_usable(entry.key)
        if not 1 <= len(plaintext) <= envelope.MAX_PLAINTEXT_BYTES:
            bound = "greater than or equal to 1" if not plaintext else "less than or equal to 4096"
            raise ValidationException(
                "1 validation error detected: Value at 'plaintext' failed to satisfy constraint: "
                f"Member must have length {bound}"
            )
        epoch, now = entry.epoch, self._monotonic()
        if epoch is None or epoch.is_over(now):
            secret = entry.record.materials[-1].secret
            epoch = crypto.Epoch(secret, entry.key.key_id, entry.material_id, now, self._urandom)
            entry.epoch = epoch
        try:
            return Wrapped(epoch.wrap(plaintext, context), entry.material_id)
        except UnicodeEncodeError:
            raise ValidationException("The encryption context has no UTF-8 form: a lone surrogate") from None

    def decrypt(self, blob: bytes, context: Mapping[str, str]) -> Decrypted:
        """Open a blob that ``encrypt`` made, with the same context.

        Raises ``InvalidCiphertextException`` with an empty message, as KMS does, whatever is wrong with
        blob or context; and, only for a blob that opens, ``DisabledException`` or
        ``KMSInvalidStateException``.
        """
        sealed = envelope.parse(blob)
        secret = self._secrets.get(sealed.key_id, _NO_SECRETS).get(sealed.material_id)
        plaintext = crypto.unwrap(secret, sealed, context)
        entry = self._by_raw_id[sealed.key_id]  # or there were no secret, and nothing would have opened
        require_usable(entry.key)
        return Decrypted(entry.key, plaintext, sealed.material_id.hex())

    def new_epoch(self) -> None:
        """Wrap under newly derived keys from now on: for a new generation of the VM."""
        for entry in self._by_id.values():
            entry.epoch = None

    def _entry(self, key: Key) -> _Entry:
        entry = self._by_id.get(key.key_id)
        if entry is None:
            raise names.not_found(key.arn)
        return entry


def require_usable(key: Key) -> None:
    """Raise ``DisabledException`` or ``KMSInvalidStateException`` for a key that cannot be used."""
    if key.state == "Disabled":
        raise DisabledException(f"{key.arn} is disabled.")
    if key.state != "Enabled":
        raise KMSInvalidStateException(f"{key.arn} is pending deletion.")
