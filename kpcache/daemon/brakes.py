"""Lets makers that nobody waits for step back: reads the kernel's pressure, and counts their CPU time.

``core/manners`` decides; this is its view of the machine.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from kpcache.core.manners import LOOK_INTERVAL_S, Duty, Pressure

_FOLDER: Final = Path("/proc/pressure")
_SOME: Final = re.compile(r"some .* total=(\d+)")


def stalled_s(resource: str) -> float:
    """Seconds since the machine's start in which some task waited for it. Raises ``OSError`` or
    ``ValueError`` where the kernel does not tell (psi.rst: not compiled in, or psi=0)."""
    found = _SOME.search((_FOLDER / resource).read_text())
    if found is None:
        raise ValueError(resource)
    return int(found[1]) / 1e6


class Brakes:
    """How much that is not urgent may be made at present."""

    def __init__(
        self, percent: float, cpus: int, makers: int, read: Callable[[str], float] | None = stalled_s
    ) -> None:
        """``percent`` of ``cpus`` for makers on average; ``read`` gives the seconds that some task waited for
        "cpu" and "memory", and is None where pressure is not to be heeded."""
        now = trio.current_time()
        self._percent, self._cpus, self._makers = percent, cpus, makers
        self._duty = Duty(percent, cpus, now)
        self._pressure = Pressure(makers)
        self._heeds_pressure = read is not None
        self._read = read
        self._looked = now - LOOK_INTERVAL_S

    def adjust(self, percent: float, read: Callable[[str], float] | None = stalled_s) -> None:
        """Other bounds from now on. One that is what it was goes on with what it knows."""
        if percent != self._percent:
            self._percent = percent
            self._duty = Duty(percent, self._cpus, trio.current_time())
        if (read is not None) != self._heeds_pressure:
            self._heeds_pressure, self._read = read is not None, read
            self._pressure = Pressure(self._makers)

    @property
    def allowed(self) -> int:
        """Makers that may work at once."""
        return self._pressure.allowed

    def spent(self, cpu_s: float) -> None:
        """Makers have used so much CPU."""
        self._duty.spent(cpu_s, trio.current_time())

    def leisure(self, busy: int) -> int:
        """How many more than the ``busy`` makers may work on what is not urgent."""
        now = trio.current_time()
        self._look(now)
        return 0 if self._duty.free_at() > now else max(self._pressure.allowed - busy, 0)

    def next_look(self) -> float:
        """When the answer may be another, on trio's clock."""
        now = trio.current_time()
        free_at = self._duty.free_at()
        return free_at if free_at > now else now + LOOK_INTERVAL_S

    def _look(self, now: float) -> None:
        if self._read is None or now - self._looked < LOOK_INTERVAL_S:
            return
        self._looked = now
        try:
            self._pressure.look(now, self._read("cpu"), self._read("memory"))
        except (OSError, ValueError):
            self._read = None  # this kernel does not tell, and will not before its next start
