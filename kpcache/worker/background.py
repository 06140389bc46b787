"""How a maker steps back behind all others, once it has started up. Linux only: sched(7).

The idle class (SCHED_IDLE) yields at once to whoever else wants the CPU, but only inside one scheduling
group. With autogrouping every session is a group, and groups share a CPU evenly whatever the classes
inside them: measured on 2 cores with 4 busy processes in another session, makers of the idle class took
half of both CPUs, in the daemon's session as in one of their own. So a maker leads a session of its own
and sets that group to nice 19, the least weight there is: then the busy processes kept 97 %.

Inside such a group its class decides nothing between it and others, and the idle class does harm: the
kernel takes a CPU that runs idle-class work for a free one and sends a waking process there, where it
then has to wait for the tick, since it does not outrank the maker's group at once. Measured on 2 cores
with both makers busy, 28,000 requests in turn with each: p99.9 of an answer was 2.7 and 3.9 ms with the
idle class, 0.55 ms with the batch class, 0.39 ms with the makers stopped. So there it is the batch class.

Without autogrouping (it is off, or a cgroup has the CPU controller, as in most services and containers)
maker and daemon are in one group, and there the idle class is what lets the daemon in at once.
"""

import contextlib
import os
from pathlib import Path
from typing import Final, Literal, cast, get_args

from kpcache.worker.process import StartError

Scheduling = Literal["idle", "batch", "normal"]

_LOWEST: Final = 19
_SWITCH: Final = Path("/proc/sys/kernel/sched_autogroup_enabled")
_CGROUPS: Final = Path("/sys/fs/cgroup")


def parse_scheduling(value: object) -> Scheduling:
    """``value`` if it names a scheduling class. Raises ``StartError``."""
    if value not in get_args(Scheduling):
        raise StartError("the scheduling class is none of idle, batch, normal")
    return cast(Scheduling, value)


class Background:
    """This process's way into the background."""

    def __init__(self) -> None:
        """Create it before ``protect``: after that /proc/self belongs to root, and only root may open it."""
        self._autogroup: int | None = None
        with contextlib.suppress(OSError):  # autogrouping is not compiled in, or /proc is read-only
            if sessions_are_groups(_SWITCH.read_text(), Path("/proc/self/cgroup").read_text(), _CGROUPS):
                self._autogroup = os.open("/proc/self/autogroup", os.O_WRONLY | os.O_CLOEXEC)

    def enter(self, scheduling: Scheduling) -> None:
        """Enter the class; only ``idle`` also lowers the autogroup.

        A kernel that refuses leaves the process where it was, which costs others CPU and nothing else.
        """
        if scheduling == "idle" and self._autogroup is None:
            self._set(os.SCHED_IDLE)
        elif scheduling != "normal":
            self._set(os.SCHED_BATCH)
        if scheduling == "idle":
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, 0, _LOWEST)
            self.settle()
        else:
            self._close()

    def _set(self, policy: int) -> None:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, policy, os.sched_param(0))

    def settle(self) -> None:
        """Lower the autogroup if that is still to do. Call before each key.

        Without CAP_SYS_ADMIN the kernel takes one such change every 0.1 s on the whole machine and
        answers others with EAGAIN (kernel/sched/autogroup.c), so makers started together must ask again.
        """
        if self._autogroup is None:
            return
        try:
            os.write(self._autogroup, b"%d" % _LOWEST)
        except BlockingIOError:
            return
        except OSError:
            pass  # autogrouping was switched off meanwhile: nothing to lower
        self._close()

    def _close(self) -> None:
        if self._autogroup is not None:
            os.close(self._autogroup)
            self._autogroup = None


def sessions_are_groups(switch: str, cgroups: str, mounted: Path) -> bool:
    """Whether autogrouping schedules this process: it is on, and no cgroup's CPU controller comes first.

    ``switch`` is the text of sched_autogroup_enabled, ``cgroups`` that of /proc/self/cgroup (cgroups(7)),
    ``mounted`` where the cgroup file systems are. Only the root of the hierarchy has no ``cpu.max``, which
    also tells a container's root from the machine's. Raises ``OSError``.
    """
    if switch.strip() != "1":
        return False
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(",") and path != "/":
            return False
        if not controllers:
            own = Path(path.lstrip("/"))
            if any((mounted / folder / "cpu.max").exists() for folder in (own, *own.parents)):
                return False
    return True
