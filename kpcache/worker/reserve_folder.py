"""The folder of the reserve: only one that lies in memory and that nobody else can enter. Linux only.

On a disk, sealed pairs would be in its images and backups, from which they come back after they were given
out. The daemon and each shard look for themselves, at the folder that they have open, so that none that is
put in its place counts.
"""

import ctypes
import os
import stat
from pathlib import Path
from typing import Final

# <linux/magic.h>; ramfs is never swapped out either.
_TMPFS_MAGIC: Final = 0x01021994
_RAMFS_MAGIC: Final = 0x858458F6
# struct statfs has 120 bytes on 64-bit machines; its first word is f_type. Where it is not (s390x), no
# folder is taken for one in memory.
_STATFS_BYTES: Final = 512

_libc: Final = ctypes.CDLL(None, use_errno=True)


class UnfitFolderError(Exception):
    """The folder cannot have the reserve; the message names it, says why, and what would help."""


def open_folder(path: Path) -> int:
    """A descriptor of the folder. Raises ``UnfitFolderError``."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise UnfitFolderError(f"{path} cannot be opened ({error.strerror})") from error
    try:
        _require_fit(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _require_fit(fd: int, path: Path) -> None:
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise UnfitFolderError(
            f"{path} is not this user's alone; chown it to the daemon's user and chmod it 700"
        )
    if not is_in_memory(fd):
        raise UnfitFolderError(f"{path} is not on a tmpfs; set daemon.runtime_dir to a folder on one")


def is_in_memory(fd: int) -> bool:
    """Whether an open file or folder lies on a tmpfs or ramfs. Raises ``UnfitFolderError``."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.fstatfs(ctypes.c_int(fd), buffer):
        raise UnfitFolderError(f"fstatfs failed: {os.strerror(ctypes.get_errno())}")
    kind = ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF
    return kind in (_TMPFS_MAGIC, _RAMFS_MAGIC)
