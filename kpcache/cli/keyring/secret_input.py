"""What an export is encrypted under and opened with: from a file or a terminal, never from an argument or
the environment, where other processes could read it."""

import os
import stat
import sys
from typing import Final

from kpcache.cli.output import UsageError

# scrypt makes a guess cost a second of CPU time; against people's own choices that is not enough.
MIN_PASSPHRASE_CHARACTERS: Final = 12
_MAX_FILE_BYTES: Final = 65_536
_NO_TERMINAL: Final = "stdin is no terminal to ask for a passphrase on"


def new_passphrase(path: str | None) -> str:
    """The one in the file, or one that is asked for, twice. Raises ``UsageError``, also for a short one."""
    if path is not None:
        passphrase, where = _passphrase_in(path), f"--passphrase-file {path}: "
    else:
        _require_terminal("give --passphrase-file F or --recipient age1…")
        passphrase, where = _ask(f"Passphrase ({MIN_PASSPHRASE_CHARACTERS} characters or more): "), ""
    if len(passphrase) < MIN_PASSPHRASE_CHARACTERS:
        raise UsageError(f"{where}the passphrase has fewer than {MIN_PASSPHRASE_CHARACTERS} characters")
    if path is None and _ask("Once more: ") != passphrase:
        raise UsageError("the two passphrases differ; nothing was done")
    return passphrase


def known_passphrase(path: str | None) -> str:
    """The one that a file was encrypted under, however short. Raises ``UsageError``."""
    if path is not None:
        return _passphrase_in(path)
    _require_terminal("give --passphrase-file F")
    return _ask("Passphrase of the export: ")


def identities(path: str) -> list[str]:
    """The lines of an identity file as age-keygen writes it. Raises ``UsageError`` if it has none."""
    lines = [line.strip() for line in _read(path, "--identity").splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found or not all(line.startswith("AGE-SECRET-KEY-1") for line in found):
        raise UsageError(
            f"--identity {path}: is not lines of AGE-SECRET-KEY-1…, as age-keygen writes them; "
            "one that is encrypted itself must be opened first, by age -d"
        )
    return found


def _passphrase_in(path: str) -> str:
    text = _read(path, "--passphrase-file").removesuffix("\n").removesuffix("\r")
    if not text or "\n" in text:
        raise UsageError(f"--passphrase-file {path}: must have one line, the passphrase")
    return text


def _read(path: str, option: str) -> str:
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}") from error
    # Only of a file on a disk does the mode say who else can read what it holds.
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        raise UsageError(f"{option} {path}: others may read or change it; run: chmod go= FILE")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{option} {path}: is not text") from None
    if len(data) > _MAX_FILE_BYTES:
        raise UsageError(f"{option} {path}: is larger than any such file")
    return text


def _require_terminal(instead: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError(f"{_NO_TERMINAL}; {instead}")


def _ask(question: str) -> str:
    import getpass

    try:
        return getpass.getpass(question)
    except EOFError:
        raise UsageError("no passphrase was given; nothing was done") from None
