"""The two brakes on makers that nobody waits for: a share of the CPUs, and the pressure on the machine."""

import pytest

from kpcache.core.manners import CPU_LIMIT, LOOK_INTERVAL_S, MEMORY_LIMIT, Duty, Pressure


def test_makers_use_their_share_on_average_and_no_more() -> None:
    """Keys of 0.7 s of CPU, one begun whenever the budget lets it: 25 % of 2 CPUs is half a CPU second a
    second."""
    duty, now, used = Duty(25, 2, 0.0), 0.0, 0.0
    while now < 1000:
        now = max(now, duty.free_at()) + 0.7
        used += 0.7
        duty.spent(0.7, now)
    assert used == pytest.approx(0.5 * 1000, rel=0.01)


def test_an_idle_hour_does_not_buy_an_hour_at_full_speed() -> None:
    duty, used = Duty(10, 1, 0.0), 0.0
    while duty.free_at() <= 3600.0:
        duty.spent(0.01, 3600.0)
        used += 0.01
    assert used <= 0.1 + 0.011  # what a second saves


def test_all_of_the_cpus_is_no_limit() -> None:
    duty = Duty(100, 2, 0.0)
    duty.spent(1e9, 5.0)
    assert duty.free_at() <= 5.0


class Machine:
    """A machine whose pressure is told, and makers that heed it."""

    def __init__(self, makers: int) -> None:
        self.pressure = Pressure(makers)
        self.now = self.cpu_s = self.memory_s = 0.0
        self.look(0, 0)

    def look(self, cpu: float, memory: float, after_s: float = LOOK_INTERVAL_S) -> int:
        """After a time in which some task waited for these shares of it."""
        self.now += after_s
        self.cpu_s += cpu * after_s
        self.memory_s += memory * after_s
        self.pressure.look(self.now, self.cpu_s, self.memory_s)
        return self.pressure.allowed


def test_under_pressure_there_are_soon_half_as_many_and_never_none() -> None:
    machine = Machine(16)
    assert [machine.look(1.0, 0.0) for _ in range(6)] == [8, 4, 2, 1, 1, 1]


def test_without_pressure_they_come_back_one_by_one() -> None:
    machine = Machine(4)
    assert [machine.look(1.0, 0.0) for _ in range(2)] == [2, 1]
    assert [machine.look(0.0, 0.0) for _ in range(8)] == [1, 2, 2, 3, 3, 4, 4, 4]


@pytest.mark.parametrize(
    ("cpu", "memory", "allowed"),
    [
        (CPU_LIMIT - 0.01, 0, 4),
        (CPU_LIMIT + 0.01, 0, 2),
        (0, MEMORY_LIMIT - 0.01, 4),
        (0, MEMORY_LIMIT + 0.01, 2),
    ],
)
def test_memory_counts_sooner_than_cpu(cpu: float, memory: float, allowed: int) -> None:
    assert Machine(4).look(cpu, memory) == allowed


def test_a_time_in_which_nobody_looked_says_nothing() -> None:
    machine = Machine(4)
    assert machine.look(1.0, 1.0, after_s=61.0) == 4
    assert machine.look(1.0, 1.0, after_s=10.0) == 2  # a key takes so long under pressure


def test_an_hour_of_what_was_urgent_is_not_paid_back_for_ten() -> None:
    duty = Duty(10, 2, 0.0)
    for second in range(3600):
        duty.spent(2.0, float(second))
    assert duty.free_at() <= 3600 + 60
