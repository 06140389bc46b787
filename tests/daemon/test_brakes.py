"""The makers' brakes: what the kernel says of pressure is read now and then, and does without."""

from pathlib import Path

import pytest
import trio

from kpcache.core.manners import LOOK_INTERVAL_S
from kpcache.daemon import brakes as brakes_module
from kpcache.daemon.brakes import Brakes, stalled_s
from tests.fakes import mock_clock


class FakeKernel:
    """Seconds that some task waited for each resource, as set; counts how often it is asked."""

    def __init__(self) -> None:
        self.waited = {"cpu": 0.0, "memory": 0.0}
        self.asked = 0

    def read(self, resource: str) -> float:
        self.asked += 1
        return self.waited[resource]


@mock_clock
async def test_under_pressure_fewer_makers_may_work_on_what_is_not_urgent() -> None:
    kernel = FakeKernel()
    brakes = Brakes(100, 2, 4, kernel.read)
    assert brakes.leisure(1) == 3
    for allowed in (2, 1, 1):
        await trio.sleep(LOOK_INTERVAL_S)
        kernel.waited["cpu"] += LOOK_INTERVAL_S
        assert brakes.leisure(0) == allowed
    assert brakes.leisure(3) == 0


@mock_clock
async def test_the_kernel_is_asked_once_a_second_at_most() -> None:
    kernel = FakeKernel()
    brakes = Brakes(100, 2, 4, kernel.read)
    for _ in range(1000):
        brakes.leisure(0)
        await trio.sleep(0.01)
    assert kernel.asked <= 2 * (10 / LOOK_INTERVAL_S + 1)


@mock_clock
async def test_a_share_of_the_cpus_is_kept_to() -> None:
    brakes = Brakes(25, 2, 4, None)
    assert brakes.leisure(0) == 4
    brakes.spent(1.0)  # half a CPU second was there, the other half is owed: a second's worth
    assert brakes.leisure(0) == 0
    assert brakes.next_look() == pytest.approx(trio.current_time() + 1.0)
    await trio.sleep(1.001)
    assert brakes.leisure(0) == 4


@pytest.mark.parametrize("failure", [OSError("not supported"), ValueError("cpu")])
def test_a_kernel_that_does_not_tell_is_asked_once(failure: Exception) -> None:
    @mock_clock
    async def drive() -> None:
        asked = 0

        def read(_: str) -> float:
            nonlocal asked
            asked += 1
            raise failure

        brakes = Brakes(100, 2, 4, read)
        for _ in range(3):
            await trio.sleep(LOOK_INTERVAL_S)
            assert brakes.leisure(0) == 4
        assert asked == 1

    drive()


def test_what_the_kernel_writes_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brakes_module, "_FOLDER", tmp_path)
    file = tmp_path / "cpu"
    file.write_text(
        "some avg10=9.37 avg60=7.55 avg300=2.97 total=13751136\n"
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
    )
    assert stalled_s("cpu") == 13.751136
    file.write_text("")
    with pytest.raises(ValueError, match="cpu"):
        stalled_s("cpu")
    with pytest.raises(OSError, match="memory"):
        stalled_s("memory")


@mock_clock
async def test_other_bounds_are_in_force_at_once_and_those_that_stay_know_what_they_knew() -> None:
    kernel = FakeKernel()
    brakes = Brakes(25, 2, 4, kernel.read)
    assert brakes.leisure(0) == 4
    await trio.sleep(LOOK_INTERVAL_S)
    kernel.waited["cpu"] += LOOK_INTERVAL_S
    brakes.spent(10.0)
    for allowed, percent, read in (
        (0, 25, kernel.read),  # what is owed is owed still
        (2, 100, kernel.read),  # and the machine is under pressure still
        (4, 100, None),
        (4, 25, None),
        (4, 25, kernel.read),
    ):
        brakes.adjust(percent, read)
        assert brakes.leisure(0) == allowed
    assert kernel.asked > 2
    await trio.sleep(LOOK_INTERVAL_S)
    brakes.leisure(0)
    await trio.sleep(LOOK_INTERVAL_S)
    kernel.waited["cpu"] += LOOK_INTERVAL_S
    assert brakes.leisure(0) == 2
