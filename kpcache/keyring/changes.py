"""Every change that a keyring can undergo: from one ``Document`` to the next, or a refusal, without files.

The life of a key, KMS's KeyState (AWS KMS developer guide, "Key states"): what is not here is refused.

    Enabled ── disable ──> Disabled            Disabled ── enable ──> Enabled
    Enabled, Disabled ── schedule_deletion ──> PendingDeletion ── cancel_deletion ──> Disabled
    PendingDeletion, its date reached ── purge ──> gone, with every blob that it made

Two things differ from KMS on purpose. A key whose date has come stays as it is, disabled: nothing but
``purge`` destroys, and that is asked for. And a key is never without the materials it had: ``rotate`` adds
one, which wraps from then on, and all the earlier ones still open what they made.

``key_id`` may be in any of KMS's four forms: id, key ARN, alias, alias ARN. Refusals are KMS's own errors,
for the administrator; a change that finds everything as it should be returns the document as it is.
"""

import dataclasses
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from kpcache.core.contract import shown
from kpcache.errors import (
    AlreadyExistsException,
    DisabledException,
    InvalidAliasNameException,
    KMSInvalidStateException,
    TagException,
    ValidationException,
)
from kpcache.keyring import clock, crypto, names
from kpcache.keyring.document import (
    MAX_TAGS,
    RESERVE_SECRET_BYTES,
    TAG_KEY_BYTES,
    Document,
    KeyRecord,
    Material,
)

Urandom = Callable[[int], bytes]

# KMS, ScheduleKeyDeletion: PendingWindowInDays.
MIN_WAITING_DAYS: Final = 7
MAX_WAITING_DAYS: Final = 30
_DAY_S: Final = 86400.0


def find(document: Document, key_id: str) -> KeyRecord:
    """The key that any of the four forms names, in any state. Raises ``NotFoundException``."""
    aliased = document.aliases.get(key_id.removeprefix(names.ARN_PREFIX))
    for record in document.keys:
        if record.key_id == aliased or key_id in (record.key_id, names.key_arn(record.key_id)):
            return record
    raise names.not_found(key_id)


# --- keys


def first(alias: str, now: float, urandom: Urandom) -> Document:
    """A new keyring of one key with this alias. ``now`` is in Unix seconds."""
    record = _new_key("Made at the first start", {}, now, urandom)
    content = Document((record,), {alias: record.key_id}, revision=1, exported_revision=0)
    return with_reserve_secret(with_tag_key(content, urandom), urandom)


def create_key(
    document: Document, *, description: str, tags: Mapping[str, str], now: float, urandom: Urandom
) -> Document:
    """A new key, the last in ``keys``. Raises ``TagException``."""
    _check_tags(tags)
    return revised(document, keys=(*document.keys, _new_key(description, tags, now, urandom)))


def enable(document: Document, key_id: str) -> Document:
    """Raises ``KMSInvalidStateException`` for a key that is pending deletion: cancel that first."""
    record = find(document, key_id)
    _refuse_pending(record)
    return _with(document, record, state="Enabled")


def disable(document: Document, key_id: str) -> Document:
    """From now on the key neither wraps nor opens. Raises ``KMSInvalidStateException`` as ``enable``."""
    record = find(document, key_id)
    _refuse_pending(record)
    return _with(document, record, state="Disabled")


def schedule_deletion(document: Document, key_id: str, days: int, now: float) -> Document:
    """Disable the key, and let it be purged in ``days`` (7 to 30) days.

    Raises ``ValidationException``, and ``KMSInvalidStateException`` as ``enable`` or for a clock that is
    behind any date in the keyring.
    """
    record = find(document, key_id)
    _refuse_pending(record)
    if not MIN_WAITING_DAYS <= days <= MAX_WAITING_DAYS:
        raise ValidationException(
            f"PendingWindowInDays must be from {MIN_WAITING_DAYS} to {MAX_WAITING_DAYS} days"
        )
    clock.refuse_behind(document, now)
    return _with(document, record, state="PendingDeletion", deletion_s=now + days * _DAY_S)


def cancel_deletion(document: Document, key_id: str) -> Document:
    """The key is then Disabled, as in KMS. Raises ``KMSInvalidStateException`` if none was scheduled."""
    record = find(document, key_id)
    if record.state != "PendingDeletion":
        raise KMSInvalidStateException(f"{names.key_arn(record.key_id)} is not pending deletion.")
    return _with(document, record, state="Disabled", deletion_s=None)


def purge(document: Document, key_id: str, now: float) -> Document:
    """Destroy the key and its aliases: no blob that it made can be opened again.

    Raises ``KMSInvalidStateException`` unless its deletion was scheduled and the date has come.
    """
    record = find(document, key_id)
    arn = names.key_arn(record.key_id)
    if record.deletion_s is None:
        raise KMSInvalidStateException(f"{arn} is not pending deletion: schedule that first.")
    if now < record.deletion_s:
        raise KMSInvalidStateException(
            f"{arn} is pending deletion and cannot be destroyed before {clock.date_of(record.deletion_s)}."
        )
    return revised(
        document,
        keys=tuple(each for each in document.keys if each is not record),
        aliases={alias: target for alias, target in document.aliases.items() if target != record.key_id},
    )


def rotate(document: Document, key_id: str, now: float, urandom: Urandom) -> Document:
    """A new material, which wraps from now on. Raises ``DisabledException``, ``KMSInvalidStateException``."""
    record = find(document, key_id)
    _refuse_pending(record)
    if record.state != "Enabled":
        raise DisabledException(f"{names.key_arn(record.key_id)} is disabled.")
    material = _new_material(record.key_id, now, urandom)
    return _with(document, record, materials=(*record.materials, material))


def describe_as(document: Document, key_id: str, description: str) -> Document:
    """Replace the description. Raises ``KMSInvalidStateException`` for a key that is pending deletion."""
    record = find(document, key_id)
    _refuse_pending(record)
    return _with(document, record, description=description)


def tag(document: Document, key_id: str, tags: Mapping[str, str]) -> Document:
    """Add tags, or give those that are there another value. Raises ``TagException`` and as ``enable``."""
    record = find(document, key_id)
    _refuse_pending(record)
    merged = {**record.tags, **tags}
    _check_tags(merged)
    return _with(document, record, tags=merged)


def untag(document: Document, key_id: str, keys: Sequence[str]) -> Document:
    """Remove tags; those that are not there are no error, as in KMS."""
    record = find(document, key_id)
    _refuse_pending(record)
    return _with(document, record, tags={key: v for key, v in record.tags.items() if key not in keys})


# --- aliases


def create_alias(document: Document, alias: str, key_id: str) -> Document:
    """Raises ``AlreadyExistsException``, ``InvalidAliasNameException``, ``ValidationException`` without the
    prefix (as AWS was recorded to answer), and as ``enable`` for the key."""
    if not alias.startswith("alias/"):
        raise ValidationException('Alias must start with the prefix "alias/".')
    if not names.is_alias(alias):
        raise InvalidAliasNameException(f"'{shown(alias)}' is not alias/ and letters, digits, /_-")
    if alias in document.aliases:
        raise AlreadyExistsException(f"An alias with the name {names.ARN_PREFIX}{alias} already exists")
    return _with_alias(document, alias, key_id)


def update_alias(document: Document, alias: str, key_id: str) -> Document:
    """Let the alias name another key. Raises ``NotFoundException``, and as ``enable`` for the key."""
    _require_alias(document, alias)
    return _with_alias(document, alias, key_id)


def delete_alias(document: Document, alias: str) -> Document:
    """The key stays. Raises ``NotFoundException``."""
    _require_alias(document, alias)
    return revised(document, aliases={name: key for name, key in document.aliases.items() if name != alias})


# --- export


def mark_exported(document: Document, revision: int) -> Document:
    """An export of this revision is durable elsewhere. Raises ``ValidationException`` for one yet to come."""
    if not 1 <= revision <= document.revision:
        raise ValidationException("Revision is not one that this keyring has had")
    return dataclasses.replace(document, exported_revision=max(revision, document.exported_revision))


# --- what pairs are known again by


def with_tag_key(document: Document, urandom: Urandom) -> Document:
    """The document as it is if it has a tag key, else with a new one. It is never replaced: what was recorded
    under it could not be compared any more."""
    return document if document.tag_key else dataclasses.replace(document, tag_key=urandom(TAG_KEY_BYTES))


def with_ledger(document: Document, ledger_id: str) -> Document:
    """This ledger is the one in use."""
    return dataclasses.replace(document, ledger_id=ledger_id)


# --- what waits out a restart


def with_reserve_secret(document: Document, urandom: Urandom) -> Document:
    """The document as it is if it has one, else with a new one."""
    if document.reserve_secret:
        return document
    return dataclasses.replace(document, reserve_secret=urandom(RESERVE_SECRET_BYTES))


# --- parts


def revised(document: Document, **parts: Any) -> Document:
    """The document with these of its fields, one revision on; itself if it has them already."""
    changed = dataclasses.replace(document, **parts)
    return document if changed == document else dataclasses.replace(changed, revision=document.revision + 1)


def _with(document: Document, record: KeyRecord, **parts: Any) -> Document:
    changed = dataclasses.replace(record, **parts)
    return revised(document, keys=tuple(changed if key is record else key for key in document.keys))


def _with_alias(document: Document, alias: str, key_id: str) -> Document:
    record = find(document, key_id)
    _refuse_pending(record)
    return revised(document, aliases={**document.aliases, alias: record.key_id})


def _require_alias(document: Document, alias: str) -> None:
    if alias not in document.aliases:
        raise names.not_found(alias)


def _refuse_pending(record: KeyRecord) -> None:
    if record.state == "PendingDeletion":
        raise KMSInvalidStateException(f"{names.key_arn(record.key_id)} is pending deletion.")


def _check_tags(tags: Mapping[str, str]) -> None:
    if len(tags) > MAX_TAGS:
        raise TagException("Too many tags")  # AWS's own word, recorded, where the model has another error
    if any(key.lower().startswith("aws:") for key in tags):
        raise TagException("Tags beginning with aws: are reserved: take another name")


def _new_key(description: str, tags: Mapping[str, str], now: float, urandom: Urandom) -> KeyRecord:
    key_id = str(uuid.UUID(bytes=urandom(16), version=4))
    return KeyRecord(
        key_id, "Enabled", now, None, description, dict(tags), (_new_material(key_id, now, urandom),)
    )


def _new_material(key_id: str, now: float, urandom: Urandom) -> Material:
    secret = urandom(crypto.MATERIAL_BYTES)
    return Material(crypto.material_id(secret, key_id), now, secret)
