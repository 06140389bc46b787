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
from typing import Any, Literal, NamedTuple

from kpcache.core import envelope
from kpcache.core.contract import shown
from kpcache.errors import ConfigError, DisabledException, KMSInvalidStateException, ValidationException
from kpcache.keyring import changes, crypto, document, names, views
from kpcache.keyring.document import Document, DocumentError, KeyRecord
from kpcache.keyring.store import FILE_NAME, MARK_NAME, Store

Create = Literal["if_empty", "never"]


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it was when resolved. Which material wraps is settled only when it does."""

    key_id: str
    arn: str
    state: str


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
        self._by_raw_id = {uuid.UUID(key_id).bytes: entry for key_id, entry in entries.items()}
        # All four forms of a KeyId in one look-up.
        self._names: dict[str, Key] = {}
        for entry in entries.values():
            self._names[entry.key.key_id] = self._names[entry.key.arn] = entry.key
        for alias, key_id in content.aliases.items():
            self._names[alias] = self._names[names.ARN_PREFIX + alias] = entries[key_id].key

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
                store.write(document.encode(changes.first(default_alias, float(now()), urandom)))
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
        entry = self._by_raw_id.get(sealed.key_id)
        secret = None if entry is None else entry.secrets.get(sealed.material_id)
        plaintext = crypto.unwrap(secret, sealed, context)
        assert entry is not None  # noqa: S101 - or there were no secret, and nothing would have opened
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
