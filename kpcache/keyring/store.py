"""The life of the keyring file: read with its permissions checked, written whole or not at all.

The file is the only way to open every blob ever made, so it is never half-written and never used before
it is durable: temporary, fsync, rename, fsync of the folder. The next start may find a file whose writer
was killed between the last two steps; hence ``read`` syncs both before it returns. Or one whose sync has
failed, which the kernel tells once; hence a start writes it once more (``opening``).

``keyring.json.previous`` is the state before the last change, for an operator who needs it; nothing here
reads it. A change that destroys first has its new file whole on the disk, so that a full one is met before
anything is gone; then it removes that copy, durably, renames the new file into its place, and gives it the
copy's name too. So once such a change is in force no file in the folder holds what was destroyed, and at
no instant is there a copy that lacks what is in force: a failure or a kill in between leaves the old file,
at worst without a copy. The disk and the file system may keep the old blocks for longer, as may backups.

A keyring that was lost must not be replaced by a new one: that would hide the loss, and open nothing. So
once a keyring is durable, a mark is made durable beside it, before anything is wrapped. A folder with the
mark and without the keyring has lost it; a folder without the mark has wrapped nothing. The mark also
remembers that the keyring was sealed: from then on a plain file in its place is another hand's.

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
from kpcache.keyring.files import LostError, NoRoomError, check_owner_and_mode, naming, told

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
_SEALED_TEXT: Final = b"It is sealed. While this line is here, no plain one is taken.\n"
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
# 16 MiB: some 20,000 keys. A limit, so that a wrong file is told and not read into memory whole.
_MAX_FILE_BYTES: Final = 16 * 1024 * 1024
# O_NONBLOCK: opening a FIFO planted here would wait for a writer.
_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOT_REGULAR: Final = "is not a regular file; remove it and restore the keyring from its backup"


class Store:
    """The state folder, held open so that each step works on the same one. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        """Open the folder. Raises ``ConfigError`` where others may change what is in it, and ``LostError``
        where there is none."""
        self.path, self.mark_path = folder / FILE_NAME, folder / MARK_NAME
        self._folder = folder
        with naming(folder):
            try:
                self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise LostError(told(error, folder)) from error
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

    def was_sealed(self) -> bool:
        """Whether the keyring was sealed here once, by the mark."""
        with naming(self.mark_path):
            try:
                fd = os.open(MARK_NAME, _READ_FLAGS, dir_fd=self._fd)
            except FileNotFoundError:
                return False
            with open(fd, "rb") as file:
                return _SEALED_TEXT in file.read(4096)

    def mark(self, *, is_sealed: bool) -> None:
        """Make the mark, durable, and have it say so of a sealed keyring. Only after ``read`` has returned
        one, or while it is in use: a mark alone says "lost".

        A mark that is there already was made durable by ``read``'s sync of the folder; what else is in it
        does not matter. Raises ``ConfigError``; then nothing may be wrapped.
        """
        with naming(self.mark_path):
            text = _MARK_TEXT + (_SEALED_TEXT if is_sealed else b"")
            if not self.is_marked():
                self._write_new(MARK_NAME, text)
            elif is_sealed and not self.was_sealed():
                self._remove_temporaries()
                self._write_new(TEMPORARY_NAME, text)
                os.rename(TEMPORARY_NAME, MARK_NAME, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            else:
                return
            os.fsync(self._fd)

    def read(self) -> bytes | None:
        """The file's bytes, durable by now; None if there is no such file.

        Raises ``ConfigError`` for a file that is owned by another user than ours or root, is open to group
        or others in any way, or cannot be read, and ``LostError`` for one that is no regular file.
        """
        return self._read(is_synced=True)

    def look(self) -> bytes | None:
        """As ``read``, and nothing is synced: an error that a sync meets is told once, to whoever is first,
        and must not be lost on one who only looks."""
        return self._read(is_synced=False)

    def _read(self, *, is_synced: bool) -> bytes | None:
        with naming(self.path):
            try:
                fd = os.open(FILE_NAME, _READ_FLAGS, dir_fd=self._fd)
            except FileNotFoundError:
                return None
            except OSError as error:
                raise _refusal(error, self.path) from error
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    raise LostError(f"{self.path}: {_NOT_REGULAR}")
                check_owner_and_mode(status, self.path, forbidden=0o077, cure="600")
                data = _read_all(fd, status.st_size, self.path)
                if is_synced:
                    os.fsync(fd)
                    os.fsync(self._fd)
            finally:
                os.close(fd)
        return data

    def write(self, data: bytes, *, previous: Previous = "old") -> None:
        """Put a whole, durable file in place, mode 0600.

        ``previous`` "new": what was there must be gone for good afterwards. "untouched": it is no change
        that anyone would want to take back. Raises ``ConfigError``, or ``NoRoomError``; then the old state
        stands, except where the last step fails, the sync of the folder: then it is no ``NoRoomError``, the
        new file is there, and it may be lost with the machine's power. Nothing may be wrapped under what is
        in it until it was written once more.
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
            except OSError as error:
                with contextlib.suppress(OSError):
                    self._remove_temporaries()
                if error.errno in _NO_ROOM:
                    raise NoRoomError(told(error, self.path)) from error
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


def _refusal(error: OSError, path: Path) -> ConfigError:
    """Why the file could not be opened, and what helps."""
    if error.errno == errno.ELOOP:
        return LostError(f"{path}: is a symbolic link, which is not followed; put the file itself here")
    if error.errno == errno.ENXIO:
        return LostError(f"{path}: {_NOT_REGULAR}")
    if error.errno == errno.EACCES:
        uid, quoted = os.geteuid(), shlex.quote(str(path))
        cure = f"run as root: chown {uid} {quoted} && chmod 600 {quoted}"
        return ConfigError(f"{path}: not readable for us (uid {uid}); {cure}")
    return ConfigError(told(error, path))


def _read_all(fd: int, size: int, path: Path) -> bytes:
    if size > _MAX_FILE_BYTES:
        raise ConfigError(f"{path}: {size} bytes are more than any keyring has; restore it from its backup")
    chunks = []
    while chunk := os.read(fd, 1 << 20):
        chunks.append(chunk)
    return b"".join(chunks)
