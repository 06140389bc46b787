"""What keeps keys that lie in memory from getting elsewhere, as far as the daemon itself can know it.

Nothing is locked into memory (mlock): each worker would need it for itself, and beyond ``LimitMEMLOCK`` a
locked process gets no more memory at all. A service without swap (``MemorySwapMax=0``) has no need of it.
"""

import resource
from pathlib import Path
from typing import Any, Final

from kpcache.worker import wiping
from kpcache.worker.process import is_dumpable

NO_SWAP: Final = "none"
_PROC: Final = Path("/proc")
_CGROUPS: Final = Path("/sys/fs/cgroup")


def memory_status() -> dict[str, Any]:
    """Of this process; its workers have the same settings. ``core_limit`` is in bytes, -1 for none;
    ``swap`` is "none", "possible" or "unknown", at this moment."""
    return {
        "wiped_on_free": wiping.is_in_force(),
        "dumpable": is_dumpable(),
        "core_limit": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "locked": False,
        "swap": swap(_PROC, _CGROUPS),
    }


def swap(proc: Path, mounted: Path) -> str:
    """Whether memory of this process could be written to a disk.

    Not if the machine has no swap (proc(5), swaps) or if this process's cgroup or one above it may have none
    (memory.swap.max of cgroup v2). ``mounted`` is where the cgroup file systems are.
    """
    try:
        if len((proc / "swaps").read_text().splitlines()) == 1:  # the headings
            return NO_SWAP
        known = "possible"
    except OSError:
        known = "unknown"  # hidden, as by ProcSubset=pid
    return NO_SWAP if _is_kept_from_swap(proc, mounted) else known


def _is_kept_from_swap(proc: Path, mounted: Path) -> bool:
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return False
    for line in lines:
        _, controllers, path = line.split(":", 2)
        own = Path(path.lstrip("/"))
        # A group outside this process's cgroup namespace is shown as /..: what is mounted here is another.
        if not controllers and ".." not in own.parts:
            return any(_is_zero(mounted / folder / "memory.swap.max") for folder in (own, *own.parents))
    return False


def _is_zero(file: Path) -> bool:
    try:
        return file.read_text().strip() == "0"
    except OSError:
        return False  # the root of the hierarchy has no such file
