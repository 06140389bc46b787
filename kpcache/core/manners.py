"""How many makers may work while nobody needs what they make at once.

Two brakes, both only for pools that have their low watermark and nobody waiting (``core/refill``: relaxed
for what is urgent):

- ``Duty``: makers may use so many per cent of the CPUs on average, by the CPU seconds that they report.
- ``Pressure``: fewer at once while others on this machine wait for CPU or memory, by the kernel's
  pressure-stall information (Documentation/accounting/psi.rst): additive increase, multiplicative decrease,
  since nobody can tell how many are too many (Chiu and Jain, 1989; Chef's key cache came to the same rule).

Times are monotonic seconds.
"""

from typing import Final

# A budget unspent for longer is lost: else an idle hour would buy an hour at full speed.
_SAVED_S: Final = 1.0
# Nor does what was urgent cost more than this: else an hour of it would leave a pool unfilled for many.
_OWED_S: Final = 60.0
# How often to look while makers work. The kernel's own average over 10 s would answer too late.
LOOK_INTERVAL_S: Final = 1.0
# The share of the time in which some task waited. Makers in the background wait whenever anybody else works,
# and are among those counted: CPU pressure this high says that they get next to nothing. Memory is another
# matter: a machine that waits for memory for a tenth of the time is in trouble.
CPU_LIMIT: Final = 0.6
MEMORY_LIMIT: Final = 0.1
# Under the worst pressure a single key takes many seconds, and looks are that far apart.
_STALE_S: Final = 60.0
_MORE: Final = 0.5
_LESS: Final = 0.5


class Duty:
    """A leaky bucket of CPU seconds."""

    def __init__(self, percent: float, cpus: int, now: float) -> None:
        """``percent`` of ``cpus`` together; 100 is no limit."""
        self._rate = percent / 100 * cpus
        self._is_limited = percent < 100
        self._left = self._rate * _SAVED_S
        self._at = now

    def spent(self, cpu_s: float, now: float) -> None:
        """The makers have used so much."""
        if self._is_limited:
            left = min(self._left + (now - self._at) * self._rate, self._rate * _SAVED_S) - cpu_s
            self._left = max(left, -self._rate * _OWED_S)
            self._at = now

    def free_at(self) -> float:
        """From when on the next order is within the budget; may lie in the past."""
        return self._at - self._left / self._rate if self._is_limited and self._left < 0 else self._at


class Pressure:
    """How many makers may work at once, at least one."""

    def __init__(self, makers: int) -> None:
        self._makers = makers
        self._allowed = float(makers)
        self._last: tuple[float, float, float] | None = None

    @property
    def allowed(self) -> int:
        return int(self._allowed)

    def look(self, now: float, cpu_s: float, memory_s: float) -> None:
        """Seconds that some task has waited for CPU and for memory, in all so far ("some", total)."""
        last, self._last = self._last, (now, cpu_s, memory_s)
        if last is None or now <= last[0]:
            return
        passed = now - last[0]
        if passed > _STALE_S:
            return  # nobody looked while no maker worked: that time says nothing
        if (cpu_s - last[1]) / passed > CPU_LIMIT or (memory_s - last[2]) / passed > MEMORY_LIMIT:
            self._allowed = max(self._allowed * _LESS, 1.0)
        else:
            self._allowed = min(self._allowed + _MORE, float(self._makers))
