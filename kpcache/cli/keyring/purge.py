"""``keyring purge``: the one command that destroys. It asks for the key's id, which nobody types by habit."""

import argparse
import sys
import time
from typing import Any

from kpcache.cli.keyring.access import running
from kpcache.cli.keyring.changes import tell
from kpcache.cli.output import MAX_LINE_CHARACTERS, UsageError, complain, moment
from kpcache.core.text import printable
from kpcache.errors import KMSInvalidStateException


def purge(args: argparse.Namespace) -> int:
    """Destroy a key whose waiting days are over."""
    if args.yes_destroy is None and not sys.stdin.isatty():
        raise UsageError("purge destroys: without a terminal to ask on it needs --yes-destroy KEY-ID")
    with running(args) as keyring:
        metadata = keyring.call("DescribeKey", {"KeyId": args.key})["KeyMetadata"]
    # Before the question, so that nobody confirms what cannot be; the daemon decides when it is asked.
    _require_pending(metadata)
    key_id = metadata["KeyId"]
    if args.yes_destroy is None:
        _ask(metadata)
    elif args.yes_destroy != key_id:
        raise UsageError(f"--yes-destroy {args.yes_destroy}: the key's id is {key_id}; nothing was destroyed")
    # Asked anew: the answer may have taken a while, and no connection stays open for it.
    with running(args) as keyring:
        result = keyring.call("PurgeKey", {"KeyId": key_id})
    return tell(
        args,
        result,
        f"key {key_id} is destroyed here. Exports and backups that have it can still bring it back: "
        "if it must not come back, destroy those too, then make a new export (kpcache keyring export)",
    )


def _require_pending(metadata: dict[str, Any]) -> None:
    if metadata["KeyState"] != "PendingDeletion":
        raise KMSInvalidStateException(
            f"{metadata['Arn']} is not pending deletion: run kpcache keyring delete {metadata['KeyId']}, "
            "and purge it when its days are over"
        )
    if metadata["DeletionDate"] > time.time():
        raise KMSInvalidStateException(
            f"{metadata['Arn']} is pending deletion and cannot be destroyed before "
            f"{moment(metadata['DeletionDate'])}"
        )


def _ask(metadata: dict[str, Any]) -> None:
    key_id, description = metadata["KeyId"], printable(metadata["Description"], MAX_LINE_CHARACTERS)
    complain(
        f"key {key_id} ({description or 'no description'}), made {moment(metadata['CreationDate'])}: every "
        "private key that was encrypted under it can then never be opened again. Its days ended "
        f"{moment(metadata['DeletionDate'])}, by a clock that says {moment(time.time())} now"
    )
    print("Type the key's id to destroy it: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != key_id:
        raise UsageError("this is not the key's id; nothing was destroyed")
