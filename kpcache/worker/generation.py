"""Which life of its virtual machine this process is in, read from the best source there is.

- ``vmclock``: the VMClock device; a read is one access to shared memory, and sees a change before anything
  else of the copy has run.
- ``stand-in``: a plain file in its place, for trying out: it changes when somebody writes to it.
- ``kmsg``: a line in the kernel's log. It comes some milliseconds late.
- ``none``: a copy of the machine is not noticed.
"""

import mmap
import os
import select
import stat
from typing import Final, Protocol

from kpcache.core import vm_generation

MODES: Final = ("vmclock", "stand-in", "kmsg", "none")
_RECORD_BYTES: Final = 8192  # the kernel's own bound of a record
_KERNEL_LOG: Final = os.makedev(1, 11)  # its admin-guide/devices.txt
# Whatever lies there: not to wait for, not to become our terminal.
_OPEN_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class GenerationError(Exception):
    """This source cannot be used; the text says why."""


class Source(Protocol):
    """``path`` is empty for none. ``fd``, if there is one, is readable when there is something new."""

    mode: str
    path: str

    @property
    def fd(self) -> int | None: ...

    def read(self) -> int:
        """The present generation, 64 bits: in a copy of a machine another than it was in the machine. Two
        copies of one machine may have the same.

        Raises ``OSError`` where the source fails: whoever asks must then give nothing out."""


class VmClock:
    """The page of a VMClock device, or of a file in its form."""

    fd = None

    def __init__(self, path: str) -> None:
        """Raises ``GenerationError``."""
        self.path = path
        try:
            fd = os.open(path, _OPEN_FLAGS)
            try:
                is_device = stat.S_ISCHR(os.fstat(fd).st_mode)
                page = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)
            finally:
                os.close(fd)
        except OSError as error:
            raise GenerationError(f"{path}: {error.strerror}") from error
        except ValueError as error:
            raise GenerationError(f"{path}: is not a page long") from error
        fault = vm_generation.vmclock_fault(page[: vm_generation.VMCLOCK_BYTES])
        if fault:
            raise GenerationError(f"{path}: {fault}")
        self.mode = "vmclock" if is_device else "stand-in"
        self._words = memoryview(page).cast("Q")

    def read(self) -> int:
        return self._words[vm_generation.COUNTER_WORD]


class KernelLog:
    """The kernel's log. The generation is the sequence number of the last line that tells of a copy; 0 while
    there is none, or none any more: the log has room for so much."""

    mode = "kmsg"

    def __init__(self, path: str, begin: int | None = None) -> None:
        """``begin``: the generation now, if it is known; the log is then read from its present end.

        Raises ``GenerationError``.
        """
        self.path = path
        try:
            self.fd = os.open(path, _OPEN_FLAGS)
        except OSError as error:
            raise GenerationError(f"{path}: {error.strerror}") from error
        self._generation = begin or 0
        # What was overwritten before the first read was before this process, too.
        self._lag_counts = begin is not None
        try:
            _require_kernel_log(self.fd, path)
            if begin is not None:
                os.lseek(self.fd, 0, os.SEEK_END)
            self._drain()
        except OSError as error:
            os.close(self.fd)
            raise GenerationError(f"{path}: {error.strerror}") from error
        except GenerationError:
            os.close(self.fd)
            raise
        self._lag_counts = True
        self._poll = select.poll()
        self._poll.register(self.fd, select.POLLIN)

    def read(self) -> int:
        if self._poll.poll(0):
            self._drain()
        return self._generation

    def _drain(self) -> None:
        lagged = False
        while True:
            try:
                record = os.read(self.fd, _RECORD_BYTES)
            except BlockingIOError:
                return
            except BrokenPipeError:
                # Records were overwritten before they were read; one of them may have told of a copy.
                lagged = self._lag_counts
                continue
            if not record:
                return
            if lagged or vm_generation.tells_of_fork(record):
                lagged = False
                self._generation = vm_generation.log_sequence(record) or self._generation + 1


def _require_kernel_log(fd: int, path: str) -> None:
    """Containers have other things in its place, which stay silent for ever. Raises ``GenerationError``."""
    status = os.fstat(fd)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _KERNEL_LOG:
        raise GenerationError(f"{path}: is not the kernel's log")


class Unknown:
    """No source."""

    mode = "none"
    path = ""
    fd = None

    def __init__(self, generation: int = 0) -> None:
        self._generation = generation

    def read(self) -> int:
        return self._generation


def open_source(vmclock: str, kernel_log: str) -> tuple[Source, list[str]]:
    """The best source there is, and why better ones are not used. An empty path: it is not to be used."""
    why_not: list[str] = []
    for path, kind in ((vmclock, VmClock), (kernel_log, KernelLog)):
        if not path:
            why_not.append(f"{'vmclock' if kind is VmClock else 'kernel_log'} is switched off")
            continue
        try:
            return kind(path), why_not
        except GenerationError as error:
            why_not.append(str(error))
    return Unknown(), why_not


def reopen(mode: str, path: str, generation: int) -> Source:
    """The source that another process of ours uses, from the generation on that it knows.

    Raises ``GenerationError``: also where the clock tells another one already.
    """
    source: Source
    if mode == KernelLog.mode:
        source = KernelLog(path, generation)
    elif mode == Unknown.mode:
        source = Unknown(generation)
    else:
        source = VmClock(path)
    if source.read() != generation:
        raise GenerationError("the machine was copied since this process was asked for")
    return source
