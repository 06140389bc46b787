"""A plain file in the form of the VMClock device: what it shows changes when a test says so, and no machine
is copied."""

import mmap
import struct
from pathlib import Path

_COUNTER_AT = 104


def page(generation: int, *, version: int = 1, flags: int = 1 << 8) -> bytes:
    """The kernel's struct vmclock_abi, filled up to a page."""
    head = struct.pack("<IIHBBIQQ", 0x4B4C4356, mmap.PAGESIZE, version, 0, 0, 2, 0, flags)
    return (head.ljust(_COUNTER_AT, b"\0") + struct.pack("<Q", generation)).ljust(mmap.PAGESIZE, b"\0")


class StandIn:
    """The file; ``generation`` can be set."""

    def __init__(self, path: Path, generation: int = 1) -> None:
        self.path = path
        self._generation = generation
        path.write_bytes(page(generation))

    @property
    def generation(self) -> int:
        return self._generation

    @generation.setter
    def generation(self, value: int) -> None:
        """In the file that others have mapped already."""
        with self.path.open("r+b") as file:
            file.seek(_COUNTER_AT)
            file.write(struct.pack("<Q", value))
        self._generation = value
