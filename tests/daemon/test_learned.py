"""What was learned of the demand outlives a restart, and a file that is bad, missing or full is no harm."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from kpcache.core.targets import Bounds, Targets
from kpcache.daemon.learned import FILE_NAME, SAVE_INTERVAL_S, Learned
from kpcache.daemon.planner import Planner
from kpcache.daemon.pools import PoolPlan
from tests.fakes import SPEC, FakeShards, mock_clock

NOW = 1_800_000_000.0


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mock clock would not wait for one."""

    async def at_once(call: Callable[..., object], *args: object, **_: object) -> None:
        call(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)


def planner_of(shards: FakeShards) -> Planner:
    targets = Targets(
        {SPEC: Bounds(4, 5000, 500)}, chance=0.001, max_pairs=10**6, max_bytes=10**9, now=trio.current_time()
    )
    return Planner(shards.stock.pools, 2, targets)


async def busy_planner() -> Planner:
    """One that has seen five minutes of requests."""
    shards = FakeShards({SPEC: PoolPlan(4)})
    planner = planner_of(shards)
    for _ in range(300):
        for _ in range(200):
            shards.stock.pools[SPEC].desk.missed()
        await trio.sleep(1.0)
        planner.views({})
        planner.size()
    assert shards.stock.pools[SPEC].target > 20
    return planner


@mock_clock
async def test_it_is_saved_at_the_stop_and_taken_up_again(tmp_path: Path) -> None:
    planner = await busy_planner()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Learned(tmp_path, planner, lambda: NOW).run)
        await trio.testing.wait_all_tasks_blocked()
        assert not (tmp_path / FILE_NAME).exists()
        nursery.cancel_scope.cancel()
    shards = FakeShards({SPEC: PoolPlan(4)})
    Learned(tmp_path, planner_of(shards), lambda: NOW + 60).load()
    assert shards.stock.pools[SPEC].target > 20
    assert os.listdir(tmp_path) == [FILE_NAME]
    assert set(json.loads((tmp_path / FILE_NAME).read_text())) == {"version", "saved_s", "specs"}


@mock_clock
async def test_it_is_saved_now_and_then_too(tmp_path: Path) -> None:
    planner = await busy_planner()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Learned(tmp_path, planner, lambda: NOW).run)
        await trio.sleep(SAVE_INTERVAL_S * 1.5)
        assert os.listdir(tmp_path) == [FILE_NAME]
        nursery.cancel_scope.cancel()


GOOD: dict[str, Any] = {"version": 1, "saved_s": NOW, "specs": {SPEC: [10.0, 50.0, 900.0, 30.0]}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{" * 100_000,
        "[" * 60_000,
        json.dumps({**GOOD, "version": 2}),
        json.dumps({**GOOD, "more": 1}),
        json.dumps({**GOOD, "specs": []}),
        json.dumps({**GOOD, "specs": {SPEC: [1, 2, 3]}}),
        json.dumps({**GOOD, "specs": {SPEC: [1, 2, 3, "4"]}}),
        json.dumps({**GOOD, "specs": {SPEC: [1, 2, 3, float("nan")]}}),
        json.dumps({**GOOD, "specs": {SPEC: [1, -2, 3, 4]}}),
        json.dumps({**GOOD, "specs": {SPEC: [10, 100, 10, 4]}}),
        json.dumps({**GOOD, "saved_s": None}),
        json.dumps({**GOOD, "saved_s": 10**400}),
    ],
)
def test_a_file_that_makes_no_sense_is_told_of_and_not_used(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    @mock_clock
    async def drive() -> None:
        (tmp_path / FILE_NAME).write_text(text)
        shards = FakeShards({SPEC: PoolPlan(4)})
        with caplog.at_level(logging.WARNING, "kpcache"):
            Learned(tmp_path, planner_of(shards), lambda: NOW).load()
        assert shards.stock.pools[SPEC].target == 4
        assert "demand is learned anew" in caplog.text

    drive()


@mock_clock
async def test_the_good_one_is_used(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(json.dumps(GOOD))
    shards = FakeShards({SPEC: PoolPlan(4)})
    Learned(tmp_path, planner_of(shards), lambda: NOW).load()
    assert shards.stock.pools[SPEC].target >= 30


@mock_clock
async def test_a_folder_that_cannot_be_written_is_told_of_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    planner = await busy_planner()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Learned(tmp_path / "gone", planner, lambda: NOW).run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert "a restart would learn anew" in caplog.text


@mock_clock
async def test_no_thread_to_be_had_is_told_of_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", none)
    planner = await busy_planner()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Learned(tmp_path, planner, lambda: NOW).run)
        await trio.sleep(SAVE_INTERVAL_S * 2.5)
        nursery.cancel_scope.cancel()
    assert caplog.text.count("a restart would learn anew") == 3
