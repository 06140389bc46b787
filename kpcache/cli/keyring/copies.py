"""``keyring export`` and ``keyring import``: encrypted copies of the whole keyring.

Both hold every key's secret in clear for a moment, so they first make this process unreadable for others.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence

from kpcache.cli.files import sync_folder, write_new
from kpcache.cli.keyring import age, secret_input
from kpcache.cli.keyring.access import keep_unreadable, running_or_stopped
from kpcache.cli.output import (
    MAX_LINE_CHARACTERS,
    OutputError,
    UsageError,
    as_json,
    complain,
    to_stdout,
)
from kpcache.core.text import printable
from kpcache.errors import KpcacheError

# An export of the largest keyring (5 MiB) is a third larger in base64.
_MAX_EXPORT_BYTES = 8 * 1024 * 1024


def export(args: argparse.Namespace) -> int:
    """A file counts as an export for ``kpcache status`` only when it is on a disk: until then the daemon is
    told nothing. What goes to stdout never counts: who knows where it ends."""
    keep_unreadable()
    path = _new_path(args.out)
    encrypt = _encryption(args)
    with running_or_stopped(args) as keyring:
        answer = keyring.call("ExportKeyring", {})
    if args.recipient is None:
        _tell_of_wait()
    encrypted, revision = encrypt(answer.pop("KeyringDocument")), answer["Revision"]
    if path is None:
        with to_stdout("; the export is incomplete"):
            sys.stdout.buffer.write(encrypted)
        complain("this export is not counted: what becomes of stdout is not known. --out FILE is counted")
        return 0
    _write(path, encrypted)
    try:
        with running_or_stopped(args) as keyring:
            keyring.call("MarkExported", {"Revision": revision})
    except KpcacheError as error:
        complain(f"{path} is a whole export; only that it was made could not be noted:")
        raise error from None
    result = {"File": path, "Revision": revision}
    words = (
        f"{printable(path, MAX_LINE_CHARACTERS)} has all keys as of revision {revision}. Keep it away from "
        "this machine, and what opens it away from both"
    )
    with to_stdout("; the export is done, though"):
        print(as_json(result) if args.json else words)
    return 0


def import_(args: argparse.Namespace) -> int:
    """Nothing that is here is replaced or removed."""
    keep_unreadable()
    data = _read(args.file)
    try:
        document = _opened(args, data)
    except age.ExportFileError as error:
        raise age.ExportFileError(f"{args.file}: {error.message}") from None
    with running_or_stopped(args, may_begin=True) as keyring:
        result = keyring.call("ImportKeyring", {"KeyringDocument": document})
    with to_stdout("; the import is done, though"):
        print(as_json(result) if args.json else "\n".join(import_in_words(result)))
    return 0


def import_in_words(result: Mapping[str, Sequence[str]]) -> list[str]:
    """Lines for people: what was added, and what the export has otherwise than this keyring."""
    lines = [
        f"added {what}: {', '.join(result[member])}"
        for member, what in (
            ("KeysAdded", "keys"),
            ("MaterialsAdded", "materials to keys that were here"),
            ("AliasesAdded", "aliases"),
        )
        if result[member]
    ]
    lines = lines or ["nothing added: all that the export has is here"]
    if result["AliasesKept"]:
        kept = ", ".join(result["AliasesKept"])
        lines.append(f"left as they are here, though they mean other keys in the export: {kept}")
    return lines


def _encryption(args: argparse.Namespace) -> age.Transform:
    if args.recipient is not None:
        return age.to_recipients(args.recipient)
    return age.to_passphrase(secret_input.new_passphrase(args.passphrase_file))


def _opened(args: argparse.Namespace, data: bytes) -> bytes:
    """The document, known to be a whole keyring. Raises ``ExportFileError``, ``UsageError``."""
    if age.needs_passphrase(data):
        if args.identity is not None:
            raise UsageError(f"{args.file} is under a passphrase: give --passphrase-file, not --identity")
        decrypt = age.from_passphrase(secret_input.known_passphrase(args.passphrase_file))
        _tell_of_wait()
    else:
        if args.identity is None:
            raise UsageError(f"{args.file} is for a recipient: give its identity with --identity F")
        decrypt = age.from_identities(secret_input.identities(args.identity))
    content = decrypt(data)
    from kpcache.keyring import document

    try:
        document.decode(content)
    except document.DocumentError as error:
        raise age.ExportFileError(f"was opened, but what is in it cannot be used: {error}") from None
    return content


def _tell_of_wait() -> None:
    # Before, not during: the work holds the GIL, so no thread could draw anything meanwhile.
    if sys.stderr.isatty():
        complain("a key is derived from the passphrase: this takes some seconds")


def _new_path(out: str | None) -> str | None:
    """Where the export goes, known to be free; None for stdout. Raises ``UsageError``."""
    if out == "-":
        return None
    path = out or time.strftime("kpcache-keyring-%Y%m%dT%H%M%SZ.age", time.gmtime())
    if os.path.lexists(path):
        raise UsageError(f"--out {path}: exists, and no file is overwritten; name another")
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise UsageError(f"--out {path}: there is no such folder")
    return path


def _write(path: str, data: bytes) -> None:
    """The whole file, on disk with its name; or none, and ``OutputError``."""
    written: list[str] = []
    try:
        write_new(path, data, written)
        sync_folder(os.path.dirname(path) or ".")
    except OSError as error:
        for name in written:
            with contextlib.suppress(OSError):
                os.unlink(name)
        raise OutputError(f"{path}: {error.strerror}; nothing was exported") from error


def _read(name: str) -> bytes:
    try:
        if name == "-":
            data = sys.stdin.buffer.read(_MAX_EXPORT_BYTES + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(_MAX_EXPORT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from error
    if len(data) > _MAX_EXPORT_BYTES:
        raise UsageError(f"{name}: is larger than any export")
    return data
