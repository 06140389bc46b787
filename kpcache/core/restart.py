"""When a worker that ended may be started again, and when one that lives is past hope.

It starts again at once after an honest life, later and later otherwise.
"""

from dataclasses import dataclass

# A process that lived this long was healthy: its end starts a new count of failures.
HEALTHY_LIFE_S = 10.0
FIRST_DELAY_S = 0.25
MAX_DELAY_S = 30.0
# So many failures in a row are shown as "failed": an operator should read the reason.
FAILED_AFTER = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """``delay_s`` until the next start; ``failures`` in a row so far (pass it to the next decision)."""

    delay_s: float
    failures: int

    @property
    def state(self) -> str:
        """The worker's state while it waits for its restart."""
        return "failed" if self.failures >= FAILED_AFTER else "backoff"


def decide(failures: int, lived_s: float) -> Verdict:
    """The first death is answered at once, each quick one after it with twice the delay, up to 30 s.

    It never gives up for good: the cause (a full process table, an upgrade half done) may pass while
    nobody watches, and one start every 30 s costs nothing.
    """
    failures = 1 if lived_s >= HEALTHY_LIFE_S else failures + 1
    doublings = min(failures - 2, 16)  # far beyond MAX_DELAY_S; a float cannot hold them without end
    delay_s = 0.0 if failures == 1 else min(FIRST_DELAY_S * 2**doublings, MAX_DELAY_S)
    return Verdict(delay_s, failures)


@dataclass(frozen=True, slots=True)
class WorkSample:
    """A maker with an order, looked at once. ``progress`` changes with every pair that it hands over;
    ``state`` and ``cpu_s`` are the kernel's (proc(5): R is running or waiting for a CPU)."""

    progress: tuple[int, int]
    state: str
    cpu_s: float


def is_hung(first: WorkSample, last: WorkSample, now: WorkSample, limit_cpu_s: float) -> bool:
    """Whether a maker does no more work: ``first`` is the earliest look at its progress, ``last`` the
    one before ``now``, a while ago.

    The clock alone would condemn an honest maker of the idle class on a busy machine, so what counts is
    CPU: more of it than any key takes, or none at all by a process that does not even ask for it.
    """
    if first.progress != now.progress:
        return False
    is_asleep = last.cpu_s == now.cpu_s and last.state != "R" and now.state != "R"
    return is_asleep or now.cpu_s - first.cpu_s > limit_cpu_s
