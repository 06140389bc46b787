"""Whether this life of the daemon has a reserve, and under which keys: found out once, at the start."""

import fcntl
import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kpcache.core import segment
from kpcache.core.segment import Header, Place
from kpcache.daemon.runtime_folder import prepare_runtime_folder
from kpcache.daemon.segment_folder import SegmentFolder
from kpcache.errors import ConfigError
from kpcache.worker.reserve_folder import UnfitFolderError, open_folder

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_MACHINE_ID: Final = Path("/etc/machine-id")
_NO_MACHINE: Final = bytes(16)


@dataclass(frozen=True, slots=True)
class Setup:
    """``why`` there is none; empty if there is one. ``life`` is the ledger's count of the daemon's starts;
    ``secret`` the keyring's. ``boot`` and ``machine``: see ``segment.Place``."""

    path: Path
    why: str = ""
    folder: SegmentFolder | None = None
    boot: bytes = b""
    machine: bytes = b""
    life: int = 0
    secret: bytes = field(default=b"", repr=False)

    def place(self, generation: int) -> Place:
        return Place(self.boot, self.machine, generation)

    def init(self, generation: int) -> dict[str, Any] | None:
        """What a shard is told of it: with the key of this life, and of no other."""
        if self.folder is None:
            return None
        key = segment.derive_key(self.secret, self.place(generation), self.life)
        return {
            "folder": str(self.path), "key": key, "boot": self.boot, "machine": self.machine,
            "generation": generation, "life": self.life,
        }  # fmt: skip

    def key_of(self, header: Header) -> bytes:
        """The key of the life that sealed this."""
        return segment.derive_key(self.secret, header.place, header.life)


def open_reserve(path: Path, secret: bytes, *, guard: str, life: int, ledger_fault: str) -> Setup:
    """The reserve in ``daemon.runtime_dir``, which is held open as long as the process lives. ``guard``: the
    mode in which generations are told. ``life`` 0: the ledger has not been open, ``ledger_fault`` is why.
    """
    if not life:
        return Setup(path, f"the ledger was not available at the start ({ledger_fault})")
    try:
        boot = _id(_BOOT_ID.read_text())
    except OSError as error:
        return Setup(path, f"{_BOOT_ID} cannot be read ({error.strerror})")
    if boot is None:
        return Setup(path, f"{_BOOT_ID} has no boot id")
    try:
        prepare_runtime_folder(path)
        fd = open_folder(path)
        _lock(fd, path)
    except ConfigError as error:
        return Setup(path, error.message)
    except UnfitFolderError as error:
        return Setup(path, str(error))
    return Setup(path, "", SegmentFolder(fd), boot, _machine(guard), life, secret)


def _lock(fd: int, path: Path) -> None:
    """Keep other daemons out as long as this process lives: what is another's they would take for stale, and
    delete. The shards have the folder open on their own, and not this lock, which ends with the daemon.
    Closes the folder and raises ``UnfitFolderError`` if it is not to be had."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            raise UnfitFolderError(
                f"another daemon uses {path}; set daemon.runtime_dir to another folder below /run"
            ) from error
        raise UnfitFolderError(f"{path} cannot be locked ({error.strerror})") from error


def _machine(guard: str) -> bytes:
    """The machine, and by what it tells its generations: the same number means another one with each.

    Zeros stand for an id where there is none, as in many containers: the boot's id, which is as good as
    random, tells machines apart by itself."""
    try:
        machine = _id(_MACHINE_ID.read_text()) or _NO_MACHINE
    except (OSError, ValueError):
        machine = _NO_MACHINE
    return hashlib.blake2b(machine + guard.encode(), digest_size=16, person=b"kpc-machine").digest()


def _id(text: str) -> bytes | None:
    digits = text.strip().replace("-", "")
    return bytes.fromhex(digits) if re.fullmatch("[0-9a-f]{32}", digits) else None
