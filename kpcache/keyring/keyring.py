"""The keyring: an embedded KMS with local symmetric keys. Wraps private keys and opens what it wrapped.

KMS's names and recorded wordings are kept where a client sees them: ids, ARNs, aliases, states, errors.
For one thread (the daemon's loop); no call waits, but ``open`` reads and writes files.
"""

import dataclasses
import shlex
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import urandom as kernel_urandom
from pathlib import Path
from typing import Any, Literal

from kpcache.core import envelope
from kpcache.core.contract import shown
from kpcache.errors import (
    ConfigError,
    DisabledException,
    InvalidCiphertextException,
    KMSInvalidStateException,
    ValidationException,
)
from kpcache.keyring import crypto, document, names
from kpcache.keyring.document import Document, DocumentError, KeyRecord, Material
from kpcache.keyring.store import FILE_NAME, MARK_NAME, Store

Create = Literal["if_empty", "never"]


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it was when resolved. ``material_id`` is the current one, 64 hex digits."""

    key_id: str
    arn: str
    state: str
    material_id: str


@dataclass(frozen=True, slots=True)
class Decrypted:
    """An opened blob. ``material_id`` is the one that the blob was made with, which need not be current."""

    key: Key
    plaintext: bytes = dataclasses.field(repr=False)
    material_id: str


class _Entry:
    """A key in use: its record, what clients see of it, its secrets by raw material id, its epoch if any."""

    __slots__ = ("epoch", "key", "record", "secrets")

    def __init__(self, record: KeyRecord) -> None:
        self.record = record
        self.key = Key(
            record.key_id,
            f"{names.ARN_PREFIX}key/{record.key_id}",
            record.state,
            record.materials[-1].material_id,
        )
        self.secrets = {bytes.fromhex(item.material_id): item.secret for item in record.materials}
        self.epoch: crypto.Epoch | None = None


class Keyring:
    """Keys, aliases and their epochs. Made by ``open``."""

    def __init__(
        self, content: Document, monotonic: Callable[[], float], urandom: Callable[[int], bytes]
    ) -> None:
        """Use an already durable ``content``."""
        entries = [_Entry(record) for record in content.keys]
        self._by_id = {entry.key.key_id: entry for entry in entries}
        self._by_raw_id = {uuid.UUID(entry.key.key_id).bytes: entry for entry in entries}
        # All four forms of a KeyId in one look-up.
        self._names: dict[str, Key] = {}
        for entry in entries:
            self._names[entry.key.key_id] = self._names[entry.key.arn] = entry.key
        for alias, key_id in content.aliases.items():
            self._names[alias] = self._names[names.ARN_PREFIX + alias] = self._by_id[key_id].key
        self._monotonic = monotonic
        self._urandom = urandom

    @classmethod
    def open(
        cls,
        state_dir: Path,
        *,
        create: Create,
        default_alias: str,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        urandom: Callable[[int], bytes] = kernel_urandom,
    ) -> "Keyring":
        """Read ``state_dir/keyring.json``; make it first, with one key, where that is allowed.

        The one key is named ``default_alias``. It is allowed with ``create="if_empty"`` in a folder
        that holds nothing else and never held a keyring: one that is missing beside other state, or
        beside its mark (see ``store``), was lost, and a new one would hide that. The caller holds the
        folder's lock. ``now`` gives Unix seconds, ``monotonic`` seconds, ``urandom`` bytes of the
        kernel's generator. Raises ``ConfigError`` with the cure.
        """
        crypto.require_support()
        if not names.is_alias(default_alias):
            raise ConfigError(
                f"keyring.default_alias: '{shown(default_alias)}' is not alias/ and letters, digits, /_-"
            )
        with Store(state_dir) as store:
            data = store.read()
            if data is None:
                _require_may_create(store, create)
                store.write(document.encode(_first_document(default_alias, float(now()), urandom)))
                data = store.read()
            content = _decode(data, store)
            store.mark()
        if default_alias not in content.aliases:
            known = ", ".join(sorted(content.aliases)) or "none"
            raise ConfigError(
                f"keyring.default_alias: {store.path} has no {default_alias}; its aliases: {known}"
            )
        return cls(content, monotonic, urandom)

    def resolve(self, key_id: str) -> Key:
        """The key for a key id, key ARN, alias or alias ARN, in any state. Raises ``NotFoundException``."""
        key = self._names.get(key_id)
        if key is None:
            raise names.not_found(key_id)
        return key

    def describe(self, key: Key) -> dict[str, Any]:
        """KMS's KeyMetadata. Times are Unix seconds. Raises ``NotFoundException``."""
        record = self._entry(key).record
        metadata: dict[str, Any] = {
            "AWSAccountId": names.ACCOUNT,
            "KeyId": record.key_id,
            "Arn": f"{names.ARN_PREFIX}key/{record.key_id}",
            "CreationDate": record.created_s,
            "Enabled": record.state == "Enabled",
            "Description": record.description,
            "KeyUsage": "ENCRYPT_DECRYPT",
            "KeyState": record.state,
            "Origin": "AWS_KMS",  # KMS's word for material made by the key service itself
            "KeyManager": "CUSTOMER",
            "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
            "KeySpec": "SYMMETRIC_DEFAULT",
            "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
            "MultiRegion": False,
            "CurrentKeyMaterialId": record.materials[-1].material_id,
        }
        if record.deletion_s is not None:
            metadata["DeletionDate"] = record.deletion_s
        return metadata

    def encrypt(self, key: Key, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        """The blob of 1 to 4096 bytes of plaintext: 145 bytes longer; ``core/envelope`` has its format.

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
            material = entry.record.materials[-1]
            epoch = crypto.Epoch(material.secret, entry.key.key_id, material.material_id, now, self._urandom)
            entry.epoch = epoch
        try:
            return epoch.wrap(plaintext, context)
        except UnicodeEncodeError:
            raise ValidationException("The encryption context has no UTF-8 form: a lone surrogate") from None

    def decrypt(self, blob: bytes, context: Mapping[str, str]) -> Decrypted:
        """Open a blob that ``encrypt`` made, with the same context.

        Raises ``InvalidCiphertextException`` with an empty message, as KMS does, whatever is wrong with
        blob or context; and, only for a blob that opens, ``DisabledException`` or
        ``KMSInvalidStateException``.
        """
        sealed = envelope.parse(blob)
        entry = self._by_raw_id.get(sealed.key_id)
        secret = entry.secrets.get(sealed.material_id) if entry else None
        if entry is None or secret is None:
            raise InvalidCiphertextException
        plaintext = crypto.unwrap(secret, sealed, context)
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


def _require_may_create(store: Store, create: Create) -> None:
    restore = f"restore {FILE_NAME} from its backup: without it no blob made here can be opened again"
    if store.is_marked():
        raise ConfigError(
            f"{store.path}: missing, yet it was made here, as {MARK_NAME} beside it says; {restore}; "
            "or, to begin anew and give up every blob made here, "
            f"run: rm {shlex.quote(str(store.mark_path))}"
        )
    if create == "never":
        raise ConfigError(
            f'{store.path}: missing, and keyring.create is "never"; {restore}; '
            'or, for a first start, set it to "if_empty"'
        )
    strangers = store.strangers()
    if strangers:
        raise ConfigError(
            f"{store.path}: missing, yet the folder was in use (it holds {shown(', '.join(strangers))}); "
            f"{restore}; or, for a first start, give it an empty folder"
        )


def _first_document(alias: str, now: float, urandom: Callable[[int], bytes]) -> Document:
    key_id = str(uuid.UUID(bytes=urandom(16), version=4))
    secret = urandom(crypto.MATERIAL_BYTES)
    material = Material(crypto.material_id(secret, key_id), now, secret)
    record = KeyRecord(key_id, "Enabled", now, None, "Made at the first start", (material,))
    return Document((record,), {alias: key_id})


def _decode(data: bytes | None, store: Store) -> Document:
    if data is None:
        raise ConfigError(f"{store.path}: vanished right after it was written")
    try:
        return document.decode(data)
    except DocumentError as error:
        raise ConfigError(
            f"{store.path}: {error}; restore it from its backup, and do not delete it: "
            "it is the only way to open the blobs made here"
        ) from None


def require_usable(key: Key) -> None:
    """Raise ``DisabledException`` or ``KMSInvalidStateException`` for a key that cannot be used."""
    if key.state == "Disabled":
        raise DisabledException(f"{key.arn} is disabled.")
    if key.state != "Enabled":
        raise KMSInvalidStateException(f"{key.arn} is pending deletion.")
