"""Freed memory is overwritten, in the daemon and in all workers, by settings of glibc and of Python.

A Python program cannot clear what it frees: a ``bytes`` object is copied at every hand-over. But the
allocators can, and each takes that setting from the environment at a process's start alone:

- ``MALLOC_PERTURB_`` (mallopt(3), M_PERTURB) has glibc overwrite a block with this byte when it is freed;
- small blocks on their way into a thread's cache it leaves as they are (glibc 2.36, malloc/malloc.c,
  _int_free: tcache_put comes before free_perturb), so that cache is switched off;
- Python's own allocator for objects of up to 512 bytes never overwrites anything, so it is not used.

So ``serve`` starts itself again with what is missing, in the same process: pid, descriptors and terminal
stay. Workers inherit it (``process.environment``). Whatever of it an operator has set is kept as it is, and
``MALLOC_PERTURB_=0`` is how to have none of it. Only glibc has these: elsewhere nothing is set, and
``is_in_force`` tells what is true by trying.
"""

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

_PERTURB: Final = "MALLOC_PERTURB_"
_PYTHON: Final = "PYTHONMALLOC"
_TUNABLES: Final = "GLIBC_TUNABLES"
_PERTURB_TUNABLE: Final = "glibc.malloc.perturb"
_CACHE_TUNABLE: Final = "glibc.malloc.tcache_count"
# Freed memory is full of it, allocated memory of its complement. Neither is text nor zero.
_BYTE: Final = "165"
# An option that Python keeps for programs (-X): no child inherits it, as it would a variable, and it is there
# even if whatever starts Python takes variables away, so there is never a third start.
_STARTED_AGAIN: Final = "kpcache_started_again"


def missing(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables to set for freed memory to be overwritten; empty if they are, or are not wanted."""
    tunables = environ.get(_TUNABLES, "")
    names = [tunable.partition("=")[0] for tunable in tunables.split(":")]
    if environ.get(_PERTURB) == "0":
        return {}
    wanted: dict[str, str] = {}
    if _PERTURB not in environ and _PERTURB_TUNABLE not in names:
        wanted[_PERTURB] = _BYTE
    if _PYTHON not in environ:
        wanted[_PYTHON] = "malloc"
    if _CACHE_TUNABLE not in names:
        wanted[_TUNABLES] = f"{tunables}:{_CACHE_TUNABLE}=0".lstrip(":")
    return wanted


def start_again_to_wipe() -> None:
    """Start this program again with what is missing; returns if there is nothing to gain or it cannot be.

    To be called before anything secret is read, and with nothing open that a second start would miss: what
    is in memory is lost, descriptors that exec closes are closed.
    """
    wanted = missing(os.environ) if _is_glibc() else {}
    if not wanted or _STARTED_AGAIN in sys._xoptions or not sys.executable:
        return
    # Not argv[0] as it was: "python" found by PATH need not be the same one again.
    command = [sys.executable, "-X", _STARTED_AGAIN, *sys.orig_argv[1:]]
    with contextlib.suppress(OSError):  # the daemon then says that nothing is wiped
        os.execve(sys.executable, command, {**os.environ, **wanted})  # noqa: S606 - no shell is wanted


def _is_glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (ValueError, OSError):
        return False


# Sizes of blocks: Python's own allocator and glibc's fast bins, its cache, larger ones. What is larger still
# (over 128 KiB at first) is given back to the kernel.
_SIZES: Final = (64, 400, 4000)
_BLOCKS: Final = 16
_MARK: Final = b"kpcache!"
# The allocator's own notes in a freed block overwrite its first bytes.
_NOTES_BYTES: Final = 32


@functools.cache
def is_in_force() -> bool:
    """Whether freed blocks are overwritten in this process, by trying with both allocators.

    Blocks are filled, freed and allocated again: what was in them must not be in the new ones.
    """
    library = ctypes.PyDLL(None)  # with the interpreter lock held, as Python's allocator wants it
    return all(
        _forgets(getattr(library, allocate), getattr(library, free), size)
        for allocate, free in (("malloc", "free"), ("PyObject_Malloc", "PyObject_Free"))
        for size in _SIZES
    )


def _forgets(allocate: Any, free: Any, size: int) -> bool:
    allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    free.restype, free.argtypes = None, [ctypes.c_void_p]
    marked = [allocate(size) for _ in range(_BLOCKS)]
    for block in marked:
        if block:
            ctypes.memmove(block, _MARK * (size // len(_MARK)), size)
        free(block)
    again = [allocate(size) for _ in range(_BLOCKS)]
    found = any(_MARK in ctypes.string_at(block, size)[_NOTES_BYTES:] for block in again if block)
    for block in again:
        free(block)
    return not found
