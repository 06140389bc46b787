"""What the plan is made from: costs learned, demand, users' debts, forecasts, adaptive targets."""

import pytest
import trio

from kpcache.core.demand import INTERVAL_S
from kpcache.core.fair_queue import Identity
from kpcache.core.refill import COST_WEIGHT, PoolView
from kpcache.core.specs import SPECS
from kpcache.core.targets import Bounds, Targets
from kpcache.daemon.planner import Planner
from kpcache.daemon.pools import PoolPlan
from tests.fakes import FakeShards, mock_clock

SMALL, LARGE = "RSA_2048", "RSA_4096"
ALICE, BOB = Identity(1), Identity(2)


def still_fine() -> None:
    """Nothing has changed for a request while it waited."""


def planned(shards: FakeShards, targets: Targets | None = None) -> Planner:
    return Planner(shards.stock.pools, 2, targets)


def view(planner: Planner, spec: str, **on_order: int) -> PoolView:
    return next(view for view in planner.views(on_order) if view.spec == spec)


@mock_clock
async def test_a_pool_that_lacks_nothing_is_not_in_the_plan() -> None:
    shards = FakeShards({SMALL: PoolPlan(8, 2), LARGE: PoolPlan(4, 1)})
    planner = planned(shards)
    shards.fill(8, SMALL)
    assert [view.spec for view in planner.views({})] == [LARGE]
    assert planner.views({LARGE: 4}) == []


@mock_clock
async def test_costs_are_learned_from_what_makers_report() -> None:
    planner = planned(FakeShards({SMALL: PoolPlan(8, 2)}))
    before = planner.cost_s[SMALL]
    for _ in range(60):
        planner.learn(SMALL, 1.0, 3.0)
    assert planner.cost_s[SMALL] == pytest.approx(1.0, rel=0.01)
    assert planner.is_long(SMALL)
    idle = [(0.0, dict[str, int]())]
    told = planner.forecast(SMALL, 0, idle)
    assert told is not None
    assert told.served_s == pytest.approx(3.0, rel=0.01)
    planner.learn(SMALL, before, 0.0)
    assert planner.cost_s[SMALL] == pytest.approx(1.0 + COST_WEIGHT * (before - 1.0), rel=0.01)


@mock_clock
async def test_requests_make_a_rate_and_the_ready_set_follows_it() -> None:
    shards = FakeShards({SMALL: PoolPlan(4000, 10)})
    planner = planned(shards)
    pool = shards.stock.pools[SMALL]
    low = pool.ready_target
    for _ in range(100):
        for _ in range(500):
            pool.desk.missed()
        await trio.sleep(1.0)
        rate = view(planner, SMALL).rate
    assert rate == pytest.approx(500, rel=0.1)
    assert pool.ready_target > low


@mock_clock
async def test_who_waits_counts_with_what_makers_owe_for_that_user_in_all_pools() -> None:
    shards = FakeShards({SMALL: PoolPlan(8, 2), LARGE: PoolPlan(8, 2)}, kept_percent=20)
    planner = planned(shards)
    stock = shards.stock
    stock.pools[SMALL].ready_target = 8
    shards.fill(3, SMALL)
    for _ in range(3):
        assert stock.take_nowait(SMALL, ALICE)
    stock.join_queue(LARGE, 5.0, ALICE, still_fine)
    assert view(planner, LARGE).burden_s == pytest.approx(3 * SPECS[SMALL].keygen_cost_s)
    stock.join_queue(LARGE, 5.0, BOB, still_fine)
    assert view(planner, LARGE).burden_s == 0.0
    assert view(planner, LARGE).waiting == 2


@mock_clock
async def test_those_who_wait_for_cheaper_pairs_go_first_in_a_forecast() -> None:
    shards = FakeShards({SMALL: PoolPlan(0, 0), LARGE: PoolPlan(0, 0)})
    planner = planned(shards)
    idle = [(0.0, dict[str, int]())]
    for _ in range(10):
        shards.stock.join_queue(SMALL, 60.0, ALICE, still_fine)
    large, small = planner.forecast(LARGE, 0, idle), planner.forecast(SMALL, 0, idle)
    assert large is not None
    assert small is not None
    assert large.served_s == pytest.approx(SPECS[LARGE].keygen_cost_s + 10 * SPECS[SMALL].keygen_cost_s)
    assert small.served_s == pytest.approx(SPECS[SMALL].keygen_cost_s)


@mock_clock
async def test_a_forecast_knows_how_far_an_order_is() -> None:
    planner = planned(FakeShards({SMALL: PoolPlan(0, 0), LARGE: PoolPlan(0, 0)}))
    long_key_s = SPECS[LARGE].keygen_cost_s
    told = planner.forecast(SMALL, 0, [(long_key_s / 2, {LARGE: 1})])
    assert told is not None
    assert told.served_s == pytest.approx(long_key_s / 2 + SPECS[SMALL].keygen_cost_s)
    assert planner.forecast(SMALL, 0, []) is None


@mock_clock
async def test_an_adaptive_target_follows_the_demand_and_is_kept_over_a_restart() -> None:
    def targets() -> Targets:
        bounds = {SMALL: Bounds(4, 5000, 2000)}
        return Targets(bounds, chance=0.001, max_pairs=10**6, max_bytes=10**9, now=trio.current_time())

    shards = FakeShards({SMALL: PoolPlan(4), LARGE: PoolPlan(4, 1)})
    planner = planned(shards, targets())
    pool = shards.stock.pools[SMALL]
    planner.size()
    assert (pool.target, pool.low_water) == (4, 1)
    for _ in range(600):
        for _ in range(20):
            pool.desk.missed()
        await trio.sleep(1.0)
        planner.views({})
        planner.size()
    grown = pool.target
    assert grown > 20
    assert pool.low_water == 1  # filled at leisure, until there have been as many
    shards.hold(grown, SMALL)
    assert pool.low_water == grown // 4

    again = FakeShards({SMALL: PoolPlan(4), LARGE: PoolPlan(4, 1)})
    successor = planned(again, targets())
    successor.resume(planner.state(), away_s=1.0)
    assert again.stock.pools[SMALL].target == pytest.approx(grown, rel=0.05)
    assert again.stock.pools[LARGE].target == 4
    successor.resume({SMALL: [0.0, 0.0, 0.0, 300.0]}, away_s=1.0)  # long past, and not yet forgotten
    assert again.stock.pools[SMALL].target == 300
    await trio.sleep(INTERVAL_S)
    with pytest.raises(ValueError, match="no sums"):
        successor.resume({SMALL: [1.0, -1.0, 1.0, 5.0]}, away_s=1.0)
