"""What reading and writing files takes that must be ours and must last, and how their errors are told."""

import contextlib
import errno
import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from kpcache.errors import ConfigError

_CURES: Final = {
    errno.ENOSPC: "; free some space there",
    errno.EDQUOT: "; free some of our user's quota there",
    errno.EROFS: "; mount that file system writable",
    errno.EIO: "; the kernel's log may say what is wrong with that disk",
}


class NoRoomError(ConfigError):
    """A write was refused before it began to count, by a disk that is full or cannot be written to."""


class LostError(ConfigError):
    """What was here is gone, or something else is in its place."""


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an OSError into a ConfigError that names the path, the reason, and what helps if known."""
    try:
        yield
    except OSError as error:
        raise ConfigError(told(error, path)) from error


def told(error: OSError, path: Path) -> str:
    """The path, the reason, and what helps if known."""
    return f"{path}: {error.strerror or error}{_CURES.get(error.errno or 0, '')}"


def check_owner_and_mode(status: os.stat_result, path: Path, *, forbidden: int, cure: str) -> None:
    """Refuse what another user owns, or whose mode has a ``forbidden`` bit. Raises ``ConfigError``.

    ``status`` is that of ``path``; ``cure`` is chmod's argument that takes the forbidden bits away.
    """
    quoted, uid, mode = shlex.quote(str(path)), os.geteuid(), stat.S_IMODE(status.st_mode)
    if status.st_uid not in (uid, 0):
        raise ConfigError(
            f"{path}: owned by uid {status.st_uid}, neither ours ({uid}) nor root; "
            f"run as root: chown {uid} {quoted}"
        )
    if mode & forbidden:
        raise ConfigError(f"{path}: mode {mode:04o} lets other users in; run: chmod {cure} {quoted}")


def make_folder(folder: Path) -> None:
    """Make it, 0700, and what is missing above it, durable: else what is put into it could go with it in a
    power cut. Raises ``OSError``."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for made in missing:
        _sync(made.parent)
    if not missing:
        # An earlier start may have been killed before its sync. Where the folder above cannot be synced
        # (not readable, or on a file system that is never written), no start of ours made this one.
        with contextlib.suppress(OSError):
            _sync(folder.parent)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
