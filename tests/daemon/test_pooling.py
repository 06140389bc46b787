"""What stands under [refill], [pools], [requests] and [[limits]] reaches what keeps the pools."""

from pathlib import Path
from typing import Any

import pytest
import trio

from kpcache.core.config import load
from kpcache.core.demand import INTERVAL_S
from kpcache.core.fair_queue import Identity
from kpcache.core.manners import LOOK_INTERVAL_S
from kpcache.core.settings import Defaults
from kpcache.core.specs import SPECS
from kpcache.daemon import pooling as wiring
from kpcache.daemon.fence import Fence
from kpcache.daemon.pooling import Pooling
from kpcache.errors import ThrottlingException
from tests.fakes import FakeLedger, FakeSource, mock_clock

CHEAP, COSTLY = "ECC_NIST_P256", "RSA_4096"
AUTO = {"target": "auto", "min": 2, "max": 50_000}
WHO = Identity(1001)


class FakeSupervisor:
    """Its shards never answer."""

    def send(self, shard: int, message: list[Any]) -> None:
        pass

    def send_draw(self, shard: int, spec: str, count: int) -> None:
        pass

    send_burn = send_draw


def made_of(folder: Path, **tables: Any) -> Pooling:
    """The parts, from a file with these tables."""
    defaults = Defaults(f"{folder}/k.sock", f"{folder}/state", f"{folder}/reserve", usable_cpus=2)
    supervisor: Any = FakeSupervisor()
    return Pooling(load(tables, defaults=defaults), supervisor, FakeLedger(), Fence(FakeSource()), 2)


def ask_in_vain(parts: Pooling, spec: str, times: int) -> None:
    """Requests that find the pool dry: that is demand, too."""
    for _ in range(times):
        with pytest.raises(ThrottlingException, match="pair is ready; try again"):
            parts.stock.join_queue(spec, 0.0, WHO, lambda: None)


async def plan_after(seconds: float, parts: Pooling, makers: int = 1) -> None:
    """Plan with idle makers: for those who have work there is nothing to plan."""
    await trio.sleep(seconds + 0.1)
    for maker in range(makers):
        parts.floor.maker_up(0, maker)
    parts.floor.plan()


async def targets_under_load(folder: Path, **refill: Any) -> dict[str, int]:
    """The adaptive targets of two pools after a while of demand for both."""
    parts = made_of(folder, pools={CHEAP: AUTO, COSTLY: AUTO}, refill=refill)
    for _ in range(10):
        for spec in (CHEAP, COSTLY):
            ask_in_vain(parts, spec, 200)
        await plan_after(INTERVAL_S, parts)
    return {spec: parts.stock.pools[spec].target for spec in (CHEAP, COSTLY)}


@mock_clock
async def test_a_smaller_chance_to_be_dry_is_a_larger_target(tmp_path: Path) -> None:
    rare = await targets_under_load(tmp_path, dry_chance=1e-6)
    often = await targets_under_load(tmp_path, dry_chance=0.4)
    assert rare[CHEAP] > often[CHEAP] > 2


@mock_clock
async def test_all_adaptive_targets_together_keep_to_the_most_pairs_and_memory(tmp_path: Path) -> None:
    free = await targets_under_load(tmp_path)
    assert sum(free.values()) > 300
    few = await targets_under_load(tmp_path, max_pairs=40)
    assert 4 < sum(few.values()) <= 40

    def bytes_of(targets: dict[str, int]) -> int:
        return sum(count * SPECS[spec].pair_bytes for spec, count in targets.items())

    assert bytes_of(free) > 2**20
    assert bytes_of(await targets_under_load(tmp_path, max_memory_mib=1)) <= 2**20


@mock_clock
async def test_an_adaptive_target_stays_between_its_least_and_its_most(tmp_path: Path) -> None:
    parts = made_of(tmp_path, pools={CHEAP: {"target": "auto", "min": 7, "max": 9}})
    assert parts.stock.pools[CHEAP].target == 7
    ask_in_vain(parts, CHEAP, 1000)
    for _ in range(2):
        await plan_after(INTERVAL_S, parts)
    assert parts.stock.pools[CHEAP].target == 9


@mock_clock
@pytest.mark.parametrize("heeds", [True, False])
async def test_pressure_is_heeded_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heeds: bool
) -> None:
    monkeypatch.setattr(wiring, "stalled_s", lambda _resource: trio.current_time())  # somebody always waits
    parts = made_of(tmp_path, workers={"makers": 4}, refill={"heed_pressure": heeds})
    for _ in range(10):
        await plan_after(LOOK_INTERVAL_S, parts, makers=4)
    assert (parts.floor.manners["allowed"] < 4) is heeds


@mock_clock
async def test_a_limit_is_for_its_user_and_its_spec(tmp_path: Path) -> None:
    limit = {"uid": 1001, "spec": COSTLY, "rate_per_s": 2, "burst": 3}
    stock = made_of(tmp_path, limits=[limit]).stock
    for _ in range(3):
        stock.take_nowait(COSTLY, WHO)
    with pytest.raises(ThrottlingException, match="limits") as caught:
        stock.take_nowait(COSTLY, WHO)
    assert caught.value.retry_after_s == pytest.approx(0.5)
    stock.take_nowait(CHEAP, WHO)
    stock.take_nowait(COSTLY, Identity(1002))
    await trio.sleep(0.5)
    stock.take_nowait(COSTLY, WHO)
