"""The commands that change keys and aliases. Each is one request to the daemon, and says what is so now."""

import argparse
from collections.abc import Iterable
from typing import Any

from kpcache.cli.keyring.access import running
from kpcache.cli.output import MAX_LINE_CHARACTERS, UsageError, as_json, moment, to_stdout
from kpcache.core.text import printable
from kpcache.errors import DisabledException, KMSInvalidStateException

_DONE = "; it is done, though"


def create(args: argparse.Namespace) -> int:
    members: dict[str, Any] = {"Tags": _tags(args.tag)} if args.tag else {}
    if args.alias is not None:
        members["AliasName"] = args.alias
    if args.description is not None:
        members["Description"] = args.description
    with running(args) as keyring:
        result = keyring.call("CreateKey", members)
    named = f", {args.alias}" if args.alias else ""
    return tell(args, result, f"made key {result['KeyMetadata']['KeyId']}{named}")


def alias_create(args: argparse.Namespace) -> int:
    result = _change_key(args, "CreateAlias", AliasName=args.alias, TargetKeyId=args.key)
    return tell(args, result, f"{args.alias} is now a name of key {args.key}")


def alias_move(args: argparse.Namespace) -> int:
    result = _change_key(args, "UpdateAlias", AliasName=args.alias, TargetKeyId=args.key)
    return tell(args, result, f"{args.alias} now means key {args.key}")


def alias_delete(args: argparse.Namespace) -> int:
    with running(args) as keyring:
        result = keyring.call("DeleteAlias", {"AliasName": args.alias})
    return tell(args, result, f"{args.alias} is removed; its key stays")


def rotate(args: argparse.Namespace) -> int:
    result = _change_key(args, "RotateKeyOnDemand", KeyId=args.key)
    return tell(
        args,
        result,
        f"key {args.key} encrypts with new material from now on; all that it encrypted before still opens",
    )


def disable(args: argparse.Namespace) -> int:
    result = _change_key(args, "DisableKey", KeyId=args.key)
    return tell(args, result, f"key {args.key} is disabled: it neither encrypts nor opens")


def enable(args: argparse.Namespace) -> int:
    result = _change_key(args, "EnableKey", KeyId=args.key)
    return tell(args, result, f"key {args.key} is enabled")


def delete(args: argparse.Namespace) -> int:
    """Nothing is destroyed here, nor when the days are over: that is ``purge``."""
    if args.cancel:
        with running(args) as keyring:
            result = keyring.call("CancelKeyDeletion", {"KeyId": args.key})
        return tell(
            args, result, f"key {args.key} stays; it is disabled until: kpcache keyring enable {args.key}"
        )
    days = {} if args.days is None else {"PendingWindowInDays": args.days}
    result = _change_key(args, "ScheduleKeyDeletion", KeyId=args.key, **days)
    return tell(
        args,
        result,
        f"key {args.key} is disabled, and from {moment(result['DeletionDate'])} it can be purged; "
        f"to keep it: kpcache keyring delete {args.key} --cancel",
    )


def tag(args: argparse.Namespace) -> int:
    result = _change_key(args, "TagResource", KeyId=args.key, Tags=_tags(args.tags))
    return tell(args, result, f"key {args.key} has the tags now")


def untag(args: argparse.Namespace) -> int:
    result = _change_key(args, "UntagResource", KeyId=args.key, TagKeys=args.tag_keys)
    return tell(args, result, f"key {args.key} does not have these tags now")


def _change_key(args: argparse.Namespace, method: str, **members: Any) -> dict[str, Any]:
    """KMS's result of a change that only a key which stays can undergo; a refusal names the way out."""
    try:
        with running(args) as keyring:
            return keyring.call(method, members)
    except DisabledException as error:
        raise DisabledException(f"{error.message} First: kpcache keyring enable {args.key}") from None
    except KMSInvalidStateException as error:
        if not error.message.endswith(" is pending deletion."):  # it can be the clock too
            raise
        raise KMSInvalidStateException(
            f"{error.message} To keep it: kpcache keyring delete {args.key} --cancel"
        ) from None


def tell(args: argparse.Namespace, result: dict[str, Any], words: str) -> int:
    """The result for programs or the sentence for people; the exit code."""
    with to_stdout(_DONE):
        print(as_json(result) if args.json else printable(words, MAX_LINE_CHARACTERS))
    return 0


def _tags(entries: Iterable[str]) -> list[dict[str, str]]:
    """KMS's Tags from ``K=V`` arguments: the first ``=`` divides, and a key comes once."""
    tags: dict[str, str] = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals or not key:
            raise UsageError(f"tag {entry}: must be K=V")
        if key in tags:
            raise UsageError(f"tag {key}=...: the key is given twice")
        tags[key] = value
    return [{"TagKey": key, "TagValue": value} for key, value in tags.items()]
