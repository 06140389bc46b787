"""The life of the keyring file: read with its permissions checked, written whole or not at all.

The file is the only way to open every blob ever made, so it is never half-written and never used before
it is durable: temporary, fsync, rename, fsync of the folder. The next start may find a file whose writer
was killed between the last two steps; hence ``read`` syncs both before it returns.

``keyring.json.previous`` is the state before the last change, for an operator who needs it; nothing here
reads it. A change that destroys first has its new file whole on the disk, so that a full one is met before
anything is gone; then it removes that copy, durably, renames the new file into its place, and gives it the
copy's name too. So once such a change is in force no file in the folder holds what was destroyed, and at
no instant is there a copy that lacks what is in force: a failure or a kill in between leaves the old file,
at worst without a copy. The disk and the file system may keep the old blocks for longer, as may backups.

A keyring that was lost must not be replaced by a new one: that would hide the loss, and open nothing. So
once a keyring is durable, a mark is made durable beside it, before anything is wrapped. A folder with the
mark and without the keyring has lost it; a folder without the mark has wrapped nothing.

One process at a time works here: it holds the lock on ``lock`` in the same folder, which is not taken here.
"""

import contextlib
import errno
import os
import shlex
import stat
from pathlib import Path
from typing import Final, Literal

from kpcache.errors import ConfigError
from kpcache.keyring.files import check_owner_and_mode, naming

FILE_NAME: Final = "keyring.json"
PREVIOUS_NAME: Final = "keyring.json.previous"
TEMPORARY_NAME: Final = "keyring.json.new"
# The old file under a second name, on its way to being the previous one.
OLD_NAME: Final = "keyring.json.old"
# What the previous file is after a write: what was there before, the same as the new one, or untouched.
Previous = Literal["old", "new", "untouched"]
LOCK_NAME: Final = "lock"
MARK_NAME: Final = "keyring.made"
_TEMPORARY_NAMES: Final = (TEMPORARY_NAME, OLD_NAME)
_MARK_TEXT: Final = b"keyring.json was made in this folder. While this file is here, no other is made.\n"
# 16 MiB: some 20,000 keys. A limit, so that a wrong file is told and not read into memory whole.
_MAX_FILE_BYTES: Final = 16 * 1024 * 1024
_NOT_REGULAR: Final = "is not a regular file; remove it and restore the keyring from its backup"


class Store:
    """The state folder, held open so that each step works on the same one. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        """Open the folder. Raises ``ConfigError`` where it isn't one, or others may change what is in it."""
        self.path, self.mark_path = folder / FILE_NAME, folder / MARK_NAME
        self._folder = folder
        with naming(folder):
            self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                check_owner_and_mode(os.fstat(self._fd), folder, forbidden=0o022, cure="go-w")
            except ConfigError:
                self.close()
                raise

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._fd)

    def strangers(self) -> list[str]:
        """What lies in the folder besides the lock and temporaries that a killed writer left, sorted."""
        with naming(self._folder):
            return sorted(set(os.listdir(self._fd)) - {LOCK_NAME, *_TEMPORARY_NAMES})

    def has_previous(self) -> bool:
        """Whether the state before the last change is there."""
        with naming(self._folder):
            return PREVIOUS_NAME in os.listdir(self._fd)

    def is_marked(self) -> bool:
        """Whether there was a keyring here, by the mark that the first one leaves."""
        with naming(self._folder):
            return MARK_NAME in os.listdir(self._fd)

    def mark(self) -> None:
        """Make the mark, durable. Only after ``read`` has returned a keyring: a mark alone says "lost".

        A mark that is there already was made durable by ``read``'s sync of the folder; what is in it
        does not matter. Raises ``ConfigError``; then nothing may be wrapped.
        """
        with naming(self.mark_path), contextlib.suppress(FileExistsError):
            self._write_new(MARK_NAME, _MARK_TEXT)
            os.fsync(self._fd)

    def read(self) -> bytes | None:
        """The file's bytes, durable by now; None if there is no such file.

        Raises ``ConfigError`` for a file that is no regular one, is owned by another user than ours
        or root, is open to group or others in any way, or cannot be read.
        """
        # O_NONBLOCK: opening a FIFO planted here would wait for a writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with naming(self.path):
            try:
                fd = os.open(FILE_NAME, flags, dir_fd=self._fd)
            except FileNotFoundError:
                return None
            except OSError as error:
                raise ConfigError(f"{self.path}: {_cure(error, self.path)}") from error
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    raise ConfigError(f"{self.path}: {_NOT_REGULAR}")
                check_owner_and_mode(status, self.path, forbidden=0o077, cure="600")
                data = _read_all(fd, status.st_size, self.path)
                os.fsync(fd)
                os.fsync(self._fd)
            finally:
                os.close(fd)
        return data

    def write(self, data: bytes, *, previous: Previous = "old") -> None:
        """Put a whole, durable file in place, mode 0600.

        ``previous`` "new": what was there must be gone for good afterwards. "untouched": it is no change
        that anyone would want to take back. Raises ``ConfigError``; then the old state stands, except where
        the last step fails, the sync of the folder: the new file is there and may be lost with the
        machine's power. Nothing may be wrapped under what is in it until it was written once more.
        """
        with naming(self.path):
            try:
                # What a killed writer left may hold what is to be destroyed now.
                self._remove_temporaries()
                self._write_new(TEMPORARY_NAME, data)
                if previous == "old":
                    with contextlib.suppress(FileNotFoundError):  # the first keyring has none before it
                        self._keep_previous()
                elif previous == "new":
                    self._remove(PREVIOUS_NAME)
                    # Else a power cut could bring it back beside the new keyring.
                    os.fsync(self._fd)
                os.rename(TEMPORARY_NAME, FILE_NAME, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except OSError:
                with contextlib.suppress(OSError):
                    self._remove_temporaries()
                raise
            os.fsync(self._fd)
        if previous == "new":
            # The write is over, and well: that this copy fails is no reason to say otherwise.
            with contextlib.suppress(OSError):
                os.link(FILE_NAME, PREVIOUS_NAME, src_dir_fd=self._fd, dst_dir_fd=self._fd)
                os.fsync(self._fd)

    def _keep_previous(self) -> None:
        """Name the file a second time, so that it is there at every instant under its own name."""
        os.link(FILE_NAME, OLD_NAME, src_dir_fd=self._fd, dst_dir_fd=self._fd, follow_symlinks=False)
        os.rename(OLD_NAME, PREVIOUS_NAME, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        # rename(2) does nothing for two names of one file, as a change that destroys leaves, or a writer that
        # was killed just before its end.
        self._remove(OLD_NAME)

    def _write_new(self, name: str, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, mode=0o600, dir_fd=self._fd)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)

    def _remove_temporaries(self) -> None:
        for name in _TEMPORARY_NAMES:
            self._remove(name)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)


def _cure(error: OSError, path: Path) -> str:
    """Why the file could not be opened, and what helps."""
    quoted = shlex.quote(str(path))
    if error.errno == errno.ELOOP:
        return "is a symbolic link, which is not followed; put the file itself here"
    if error.errno == errno.EACCES:
        uid = os.geteuid()
        return f"not readable for us (uid {uid}); run as root: chown {uid} {quoted} && chmod 600 {quoted}"
    return _NOT_REGULAR if error.errno == errno.ENXIO else os.strerror(error.errno or 0)


def _read_all(fd: int, size: int, path: Path) -> bytes:
    if size > _MAX_FILE_BYTES:
        raise ConfigError(f"{path}: {size} bytes are more than any keyring has; restore it from its backup")
    chunks = []
    while chunk := os.read(fd, 1 << 20):
        chunks.append(chunk)
    return b"".join(chunks)
