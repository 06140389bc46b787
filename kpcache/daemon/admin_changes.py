"""What each method of administration makes of the keyring: the next content, KMS's answer, whom it concerns.

Pure: all of them run in the thread that writes, on the content that they will replace. They add to
``keyring/changes`` what a running daemon must not lose: the key that its configuration names.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from kpcache.core.contract import SYMMETRIC_DEFAULT
from kpcache.errors import (
    KMSInvalidStateException,
    TagException,
    UnsupportedOperationException,
    ValidationException,
)
from kpcache.keyring import changes, document, names, views
from kpcache.keyring.document import Document, DocumentError, KeyRecord
from kpcache.keyring.merge import merge

_DEFAULT_WAITING_DAYS: Final = 30  # KMS, ScheduleKeyDeletion
# More than what time synchronisation corrects while a daemon runs, and nothing against seven days.
_MAX_CLOCK_SET_S: Final = 3600.0
# What each of these may be set to: the value that a local key has.
_ONLY: Final[Mapping[str, object]] = {
    "KeySpec": SYMMETRIC_DEFAULT,
    "CustomerMasterKeySpec": SYMMETRIC_DEFAULT,
    "KeyUsage": "ENCRYPT_DECRYPT",
    "Origin": "AWS_KMS",
    "MultiRegion": False,
    "BypassPolicyLockoutSafetyCheck": False,  # there is no policy whose check could be bypassed
}
_NEVER: Final[Mapping[str, str]] = {
    "Policy": "local keys have no policies: who can open the sockets decides",
    "CustomKeyStoreId": "this keyring is the only key store",
    "XksKeyId": "this keyring is the only key store",
}

Input = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a change needs besides its input: Unix seconds, the kernel's randomness, the configured alias, and
    by how many seconds the clock was set since the daemon's start."""

    now: float
    urandom: Callable[[int], bytes]
    default_alias: str
    clock_set_s: float


class Outcome(NamedTuple):
    """``subjects``: ARNs of keys, and names of aliases, for the log; nothing in them is secret."""

    content: Document
    answer: dict[str, Any]
    subjects: list[str]


def _create_key(content: Document, data: Input, setting: Setting) -> Outcome:
    for member, allowed in _ONLY.items():
        if data.get(member, allowed) != allowed:
            raise UnsupportedOperationException(f"{member} can only be {allowed} for a local key")
    for member, reason in _NEVER.items():
        if member in data:
            raise UnsupportedOperationException(f"{member} is not offered: {reason}")
    after = changes.create_key(
        content,
        description=data.get("Description", ""),
        tags=_tags(data.get("Tags", [])),
        now=setting.now,
        urandom=setting.urandom,
    )
    record = after.keys[-1]
    subjects = [names.key_arn(record.key_id)]
    if "AliasName" in data:
        after = changes.create_alias(after, data["AliasName"], record.key_id)
        after = replace(after, revision=content.revision + 1)  # it is one change
        subjects.append(data["AliasName"])
    return Outcome(after, {"KeyMetadata": views.key_metadata(record)}, subjects)


def _create_alias(content: Document, data: Input, _: Setting) -> Outcome:
    after = changes.create_alias(content, data["AliasName"], data["TargetKeyId"])
    return Outcome(after, {}, _alias_and_key(after, data["AliasName"]))


def _update_alias(content: Document, data: Input, _: Setting) -> Outcome:
    after = changes.update_alias(content, data["AliasName"], data["TargetKeyId"])
    return Outcome(after, {}, _alias_and_key(after, data["AliasName"]))


def _delete_alias(content: Document, data: Input, setting: Setting) -> Outcome:
    alias = data["AliasName"]
    after = changes.delete_alias(content, alias)
    if alias == setting.default_alias:
        raise KMSInvalidStateException(
            f"{alias} is the configured keyring.default_alias: without it the next start would fail. Let it "
            "name another key (UpdateAlias), or configure another alias and restart first"
        )
    return Outcome(after, {}, _alias_and_key(content, alias))


def _enable(content: Document, data: Input, _: Setting) -> Outcome:
    return _of_key(content, data, lambda record: changes.enable(content, record.key_id))


def _disable(content: Document, data: Input, _: Setting) -> Outcome:
    return _of_key(content, data, lambda record: changes.disable(content, record.key_id))


def _describe(content: Document, data: Input, _: Setting) -> Outcome:
    text = data["Description"]
    return _of_key(content, data, lambda record: changes.describe_as(content, record.key_id, text))


def _tag(content: Document, data: Input, _: Setting) -> Outcome:
    tags = _tags(data["Tags"])
    return _of_key(content, data, lambda record: changes.tag(content, record.key_id, tags))


def _untag(content: Document, data: Input, _: Setting) -> Outcome:
    return _of_key(content, data, lambda record: changes.untag(content, record.key_id, data["TagKeys"]))


def _schedule_deletion(content: Document, data: Input, setting: Setting) -> Outcome:
    _require_steady_clock(setting)
    days = data.get("PendingWindowInDays", _DEFAULT_WAITING_DAYS)
    key_id = changes.find(content, data["KeyId"]).key_id
    after = changes.schedule_deletion(content, key_id, days, setting.now)
    record = changes.find(after, key_id)
    arn = names.key_arn(key_id)
    answer = {
        "KeyId": arn,
        "DeletionDate": record.deletion_s,
        "KeyState": record.state,
        "PendingWindowInDays": days,
    }
    return Outcome(after, answer, [arn])


def _cancel_deletion(content: Document, data: Input, _: Setting) -> Outcome:
    return _told_key(_of_key(content, data, lambda key: changes.cancel_deletion(content, key.key_id)))


def _rotate(content: Document, data: Input, setting: Setting) -> Outcome:
    now, urandom = setting.now, setting.urandom
    return _told_key(_of_key(content, data, lambda key: changes.rotate(content, key.key_id, now, urandom)))


def _purge(content: Document, data: Input, setting: Setting) -> Outcome:
    key_id = data["KeyId"].removeprefix(names.key_arn(""))
    if not names.is_key_id(key_id):
        # An alias may have been moved to another key since whoever asks for this has looked.
        raise ValidationException("PurgeKey takes a key's id or ARN and no alias: what it destroys is gone")
    record = changes.find(content, key_id)
    _require_steady_clock(setting)
    if content.aliases.get(setting.default_alias) == record.key_id:
        raise KMSInvalidStateException(
            f"{names.key_arn(record.key_id)} is the key of {setting.default_alias}, the configured "
            "keyring.default_alias: without it the next start would fail. Let the alias name another key "
            "(UpdateAlias) first"
        )
    return _told_key(_of_key(content, data, lambda key: changes.purge(content, key.key_id, setting.now)))


def _mark_exported(content: Document, data: Input, _: Setting) -> Outcome:
    revision = data["Revision"]
    return Outcome(changes.mark_exported(content, revision), {}, [f"revision {revision}"])


def _import(content: Document, data: Input, _: Setting) -> Outcome:
    try:
        imported = document.decode(data["KeyringDocument"])
    except DocumentError as error:
        # From None: what a decoder has in its hands is key material.
        raise ValidationException(f"KeyringDocument is not a keyring: {error}") from None
    after, done = merge(content, imported)
    answer = {
        "KeysAdded": done.keys_added,
        "MaterialsAdded": done.materials_added,
        "AliasesAdded": done.aliases_added,
        "AliasesKept": done.aliases_kept,
    }
    added = [names.key_arn(key_id) for key_id in done.keys_added]
    more = f"{len(done.materials_added)} materials added to keys that were here"
    return Outcome(after, answer, [f"{len(added)} keys added", more, *added, *done.aliases_added])


CHANGES: Final[Mapping[str, Callable[[Document, Input, Setting], Outcome]]] = {
    "kpcache.CreateKey": _create_key,
    "kpcache.CreateAlias": _create_alias,
    "kpcache.UpdateAlias": _update_alias,
    "kpcache.DeleteAlias": _delete_alias,
    "kpcache.EnableKey": _enable,
    "kpcache.DisableKey": _disable,
    "kpcache.UpdateKeyDescription": _describe,
    "kpcache.TagResource": _tag,
    "kpcache.UntagResource": _untag,
    "kpcache.ScheduleKeyDeletion": _schedule_deletion,
    "kpcache.CancelKeyDeletion": _cancel_deletion,
    "kpcache.RotateKeyOnDemand": _rotate,
    "kpcache.PurgeKey": _purge,
    "kpcache.MarkExported": _mark_exported,
    "kpcache.ImportKeyring": _import,
}
"""By the name on the wire. Each takes validated input, and raises ``KpcacheError`` for the administrator."""


def _of_key(content: Document, data: Input, change: Callable[[KeyRecord], Document]) -> Outcome:
    """A change of the key that ``KeyId`` names, in any of its forms, with nothing to answer."""
    record = changes.find(content, data["KeyId"])
    return Outcome(change(record), {}, [names.key_arn(record.key_id)])


def _told_key(outcome: Outcome) -> Outcome:
    """The same, with the key's ARN as the answer."""
    return outcome._replace(answer={"KeyId": outcome.subjects[0]})


def _require_steady_clock(setting: Setting) -> None:
    """The days until a purge are counted by the clock, and a jump of it would count for days."""
    if abs(setting.clock_set_s) > _MAX_CLOCK_SET_S:
        hours = setting.clock_set_s / 3600
        raise KMSInvalidStateException(
            f"The clock was set by {hours:+.1f} hours since this daemon's start, and the days until a purge "
            "go by it. Restart the daemon if the clock is right now."
        )


def _alias_and_key(content: Document, alias: str) -> list[str]:
    return [alias, names.key_arn(content.aliases[alias])]


def _tags(entries: list[dict[str, str]]) -> dict[str, str]:
    """Raises ``TagException`` for a list with two values for one tag: KMS's own rule for its requests."""
    tags = {entry["TagKey"]: entry["TagValue"] for entry in entries}
    if len(tags) != len(entries):
        raise TagException("Duplicate tag keys")
    return tags
