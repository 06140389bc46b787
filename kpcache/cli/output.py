"""What commands share: words for errors, JSON as the aws CLI prints it, arguments of several commands."""

import argparse
import base64
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import IO, Any

from kpcache.core.text import printable
from kpcache.errors import WIRE_CLASSES, BusyError, KpcacheError

# A message with a path in it, which may have 4096 bytes, is told whole.
MAX_LINE_CHARACTERS = 10_000


class UsageError(Exception):
    """The command was used wrongly: exit code 2."""


class OutputError(KpcacheError):
    """What a command had to put out cannot be written; the message says where, why, and what is lost."""


class TryAgainError(BusyError):
    """Somebody else is at what a command needs, for a moment; the message says who: exit code 4."""


def as_line(text: str) -> str:
    """A line for people: bears our name, and nothing in it acts on a terminal."""
    return f"kpcache: {printable(text, MAX_LINE_CHARACTERS)}"


def complain(text: str) -> None:
    """One line on stderr."""
    try:
        print(as_line(text), file=sys.stderr, flush=True)
    except OSError:  # with stderr gone too, the exit code is all that is left to say
        drop(sys.stderr)


# The next step after a refusal in KMS's own words, which name none: how such a message ends, and what to do.
_CURES = (
    ("is not found.", "the keys that there are: kpcache keyring list"),
    ("does not exist", "the keys that there are: kpcache keyring list"),
    ("is disabled.", "an administrator can enable it: kpcache keyring enable KEY"),
    ("is pending deletion.", "an administrator can keep it: kpcache keyring delete KEY --cancel"),
)


def in_words(error: KpcacheError) -> str:
    """Code, reason and message; of an error that has no code of KMS's, the message.

    Where KMS sends no message, the class says what the code means; where it names no next step, it is added.
    """
    if error.code not in WIRE_CLASSES:
        return error.message
    reason = f" ({error.reason})" if error.reason else ""
    message = error.message or (type(error).__doc__ or "")
    cure = next((f" ({cure})" for end, cure in _CURES if message.endswith(end)), "")
    again = f"; try again in {error.retry_after_s:g} s" if error.retry_after_s is not None else ""
    return f"{error.code}{reason}: {message}{cure}{again}"


def as_json(value: Any, *, one_line: bool = False) -> str:
    """As ``aws --output json``: four spaces, members in the order of the answer, blobs in base64."""
    separators = (",", ":") if one_line else None
    return json.dumps(value, indent=None if one_line else 4, separators=separators, default=_base64)


def _base64(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"no JSON for {type(value).__name__}")


@contextlib.contextmanager
def to_stdout(consequence: str = "") -> Iterator[None]:
    """Around everything that is written to stdout; at the end all of it has been handed on.

    Raises ``OutputError``, with ``consequence`` in its message, when that fails; ``BrokenPipeError``
    passes: a reader that has seen enough is usual.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        drop(sys.stdout)
        raise OutputError(f"stdout: {error.strerror or error}{consequence}") from error


def add_context_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--context",
        action="append",
        default=[],
        metavar="K=V",
        help="an entry of the encryption context; give it once for each entry",
    )


def context_members(entries: Sequence[str]) -> dict[str, Any]:
    """``EncryptionContext`` from ``K=V`` arguments, or no member when there is none.

    The first ``=`` divides. A key given twice is refused: which of the two was meant?
    """
    context: dict[str, str] = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals or not key:
            raise UsageError(f"--context {entry}: must be K=V")
        if key in context:
            raise UsageError(f"--context {key}=...: the key is given twice")
        context[key] = value
    return {"EncryptionContext": context} if context else {}


def positive_seconds(text: str) -> float:
    """An argparse type: seconds, finite, zero allowed."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("must be a number of seconds, 0 or more")
    return value


def moment(unix_s: float) -> str:
    """A time for people, in UTC."""
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M} UTC"


def drop(stream: IO[str]) -> None:
    """Let the interpreter's last flush go nowhere, instead of failing as our own did (exit code 120)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
