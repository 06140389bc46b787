"""A plain file in the form of the VMClock device (the kernel's struct vmclock_abi): copies of the machine are
pretended by what it shows. kpcache takes such a file, and calls it a stand-in."""

import mmap
import struct
from pathlib import Path
from typing import Final

# magic "VCLK", size, version, counter id, time type, sequence, disruption marker, flags: has a generation
_HEAD: Final = struct.pack("<IIHBBIQQ", 0x4B4C4356, mmap.PAGESIZE, 1, 0, 0, 2, 0, 1 << 8)
_COUNTER_AT: Final = 104
_COUNTER: Final = struct.Struct("<Q")


class VmClock:
    """The file, made at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._generation = 1
        page = _HEAD.ljust(_COUNTER_AT, b"\0") + _COUNTER.pack(self._generation)
        path.write_bytes(page.ljust(mmap.PAGESIZE, b"\0"))

    def advance(self) -> None:
        """Another generation, for all who have mapped the file, at once."""
        self._generation += 1
        with self.path.open("r+b") as file:
            file.seek(_COUNTER_AT)
            file.write(_COUNTER.pack(self._generation))
