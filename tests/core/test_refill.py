"""The refill plan: what is missing and no more, those who wait first, and no pool left behind."""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.core.refill import (
    LONG_KEY_S,
    MAX_ORDER_PAIRS,
    MAX_READY,
    MIN_READY,
    ORDER_CPU_S,
    PATIENCE_S,
    Crew,
    MakerView,
    Order,
    PoolView,
    draws,
    follow_ups,
    order_size,
    plan,
    ready_target,
)
from kpcache.core.specs import MAKEABLE, SPECS


def view(spec: str, available: int = 0, *, waiting: int = 0, on_order: int = 0) -> PoolView:
    row = SPECS[spec]
    return PoolView(spec, available, on_order, row.target, row.low_water, waiting, row.keygen_cost_s)


def makers(count: int, *, proved: bool = True) -> list[MakerView]:
    return [MakerView(0, maker, proved) for maker in range(count)]


def crew(count: int, long_orders: int = 0, *, leisure: int = 1000) -> Crew:
    """Makers that may do as they like, unless ``leisure`` says otherwise."""
    return Crew(count, long_orders, leisure)


def first(pools: list[PoolView], *, proved: bool = True) -> str:
    """What a single idle maker is told to make."""
    return plan(pools, makers(1, proved=proved), crew(1))[0].spec


@st.composite
def pool_views(draw: st.DrawFn) -> PoolView:
    target = draw(st.integers(0, 300))
    return PoolView(
        spec=draw(st.sampled_from(MAKEABLE)),
        available=draw(st.integers(0, 320)),
        on_order=draw(st.integers(0, 100)),
        target=target,
        low_water=draw(st.integers(0, target)),
        waiting=draw(st.integers(0, 50)),
        cost_s=draw(st.floats(0, 2)),
    )


pools_lists = st.lists(pool_views(), max_size=8, unique_by=lambda pool: pool.spec)
maker_lists = st.lists(
    st.builds(MakerView, st.integers(0, 2), st.integers(0, 3), st.booleans()),
    max_size=8,
    unique_by=lambda maker: (maker.shard, maker.maker),
)


@given(pools_lists, maker_lists, st.integers(0, 8), st.integers(0, 8))
def test_orders_go_to_idle_makers_once_each_and_never_ask_for_more_than_is_missing(
    pools: list[PoolView], idle: list[MakerView], long_orders: int, busy: int
) -> None:
    orders = plan(pools, idle, crew(len(idle) + busy, long_orders))
    asked: Counter[str] = Counter()
    for order in orders:
        asked[order.spec] += order.count
        assert 0 < order.count <= MAX_ORDER_PAIRS
    missing = {pool.spec: pool.missing for pool in pools}
    assert all(count <= missing[spec] for spec, count in asked.items())
    places = [(order.shard, order.maker) for order in orders]
    assert len(set(places)) == len(places)
    assert set(places) <= {(maker.shard, maker.maker) for maker in idle}


@given(pools_lists, maker_lists, st.integers(0, 8))
def test_no_maker_idles_while_a_cheap_pair_is_missing(
    pools: list[PoolView], idle: list[MakerView], long_orders: int
) -> None:
    orders = plan(pools, idle, crew(len(idle), long_orders))
    asked: Counter[str] = Counter()
    for order in orders:
        asked[order.spec] += order.count
    left = [pool for pool in pools if pool.missing > asked[pool.spec] and pool.cost_s <= LONG_KEY_S]
    assert len(orders) == len(idle) or not left


@given(pools_lists, st.integers(2, 6), st.integers(0, 6), st.data())
def test_long_keys_never_take_the_last_maker_while_cheap_pairs_are_missing(
    pools: list[PoolView], total: int, long_orders: int, data: st.DataObject
) -> None:
    long_orders = min(long_orders, total - 1)
    idle = makers(data.draw(st.integers(1, total - long_orders)))
    orders = plan(pools, idle, crew(total, long_orders))
    cost_s = {pool.spec: pool.cost_s for pool in pools}
    on_long = long_orders + sum(cost_s[order.spec] > LONG_KEY_S for order in orders)
    asked = Counter[str]()
    for order in orders:
        asked[order.spec] += order.count
    cheap_missing = any(pool.missing > asked[pool.spec] and pool.cost_s <= LONG_KEY_S for pool in pools)
    assert not cheap_missing or on_long <= total - 1


def test_a_full_daemon_orders_nothing() -> None:
    assert plan([view(spec, SPECS[spec].target) for spec in MAKEABLE], makers(4), crew(4)) == []
    assert plan([view(spec, SPECS[spec].target + 5) for spec in MAKEABLE], makers(4), crew(4)) == []
    assert plan([], makers(4), crew(4)) == []


def test_what_is_on_order_is_not_ordered_again() -> None:
    assert plan([view("RSA_2048", 200, on_order=56)], makers(2), crew(2)) == []
    assert plan([view("RSA_2048", 200, on_order=55)], makers(2), crew(2)) == [Order(0, 0, "RSA_2048", 1)]


# --- the order of need


def test_those_who_wait_come_first_and_among_them_the_cheapest() -> None:
    empty = [view(spec) for spec in MAKEABLE]
    waited_for = [replace(pool, waiting=1) if pool.spec == "RSA_4096" else pool for pool in empty]
    assert first(waited_for) == "RSA_4096"
    two = [replace(pool, waiting=1) if pool.spec in ("RSA_4096", "RSA_2048") else pool for pool in empty]
    assert first(two) == "RSA_2048"


def test_a_client_whose_pair_is_being_made_does_not_call_for_another_maker() -> None:
    pools = [view("RSA_2048", waiting=1), view("RSA_4096", waiting=2)]
    assert [order.spec for order in plan(pools, makers(3), crew(3))] == ["RSA_2048", "RSA_4096", "RSA_4096"]


def test_a_pool_neglected_for_long_comes_before_all_others_until_it_has_an_order() -> None:
    pools = [view("ECC_NIST_P256", waiting=500), replace(view("RSA_3072", 15), neglected_s=PATIENCE_S)]
    assert [order.spec for order in plan(pools, makers(2), crew(2))] == ["RSA_3072", "ECC_NIST_P256"]
    pools[1] = replace(pools[1], neglected_s=PATIENCE_S * 0.9)
    assert [order.spec for order in plan(pools, makers(2), crew(2))] == ["ECC_NIST_P256"] * 2


def test_below_low_water_comes_before_above_it_and_the_emptiest_first() -> None:
    assert first([view("RSA_4096", 8), view("ECC_NIST_P256", 63)]) == "ECC_NIST_P256"
    assert first([view("RSA_2048", 32), view("ECC_NIST_P256", 16)]) == "ECC_NIST_P256"
    assert first([view("RSA_2048", 200), view("ECC_NIST_P256", 100)]) == "ECC_NIST_P256"


def test_at_equal_need_the_costlier_goes_first() -> None:
    assert first([view(spec) for spec in MAKEABLE]) == "RSA_4096"
    assert first([view(spec) for spec in reversed(MAKEABLE) if spec != "RSA_4096"]) == "RSA_3072"
    assert first([view("ECC_NIST_P256", 64), view("RSA_2048", 64)]) == "RSA_2048"


def test_a_maker_that_has_proved_nothing_gets_the_cheapest_first() -> None:
    pools = [view(spec, waiting=spec == "RSA_4096") for spec in MAKEABLE]
    assert first(pools, proved=False) == "ECC_NIST_P256"
    assert first([view("RSA_4096")], proved=False) == "RSA_4096"  # better than nothing


def test_an_order_is_short_unless_one_key_is_long() -> None:
    for spec in MAKEABLE:
        pool = view(spec)
        count = order_size(pool)
        assert count == 1 or count * pool.cost_s <= ORDER_CPU_S
    assert order_size(replace(view("ECC_NIST_P256", 250), cost_s=0.0)) == 6
    assert order_size(replace(view("ECC_NIST_P256"), cost_s=0.0)) == MAX_ORDER_PAIRS


# --- no pool starves: the plan at work, in simulated time


@dataclass
class Simulation:
    """Makers that take exactly their pairs' cost, pools, and clients who take or wait."""

    makers: int
    pools: dict[str, PoolView]
    now: float = 0.0
    working: list[tuple[float, int, Order]] = field(default_factory=list)  # (end, maker, order)
    attended: dict[str, float] = field(default_factory=dict)
    served: Counter[str] = field(default_factory=Counter)

    def run(self, until: float, ask: Callable[["Simulation"], None] | None = None) -> None:
        """``ask`` is called before each plan and may change the pools."""
        while self.now < until:
            if ask:
                ask(self)
            self._plan()
            if not self.working:
                return
            self.now, _, order = heapq.heappop(self.working)
            self._finish(order)

    def _plan(self) -> None:
        busy = {maker for _, maker, _ in self.working}
        idle = [MakerView(0, maker, True) for maker in range(self.makers) if maker not in busy]
        long_orders = sum(self.pools[order.spec].cost_s > LONG_KEY_S for _, _, order in self.working)
        for spec, pool in self.pools.items():
            if pool.on_order or not pool.missing:
                self.attended[spec] = self.now
        views = [
            replace(pool, neglected_s=self.now - self.attended.get(spec, 0.0))
            for spec, pool in self.pools.items()
        ]
        for order in plan(views, idle, crew(self.makers, long_orders)):
            pool = self.pools[order.spec]
            self.pools[order.spec] = replace(pool, on_order=pool.on_order + order.count)
            heapq.heappush(self.working, (self.now + order.count * pool.cost_s, order.maker, order))

    def _finish(self, order: Order) -> None:
        pool = self.pools[order.spec]
        self.attended[order.spec] = self.now
        have = pool.available + order.count
        given = min(have, pool.waiting)
        self.served[order.spec] += given
        self.pools[order.spec] = replace(
            pool, available=have - given, waiting=pool.waiting - given, on_order=pool.on_order - order.count
        )

    def want(self, spec: str, waiting: int) -> None:
        """Clients take what there is, and then ``waiting`` of them wait."""
        pool = self.pools[spec]
        self.served[spec] += pool.available
        self.pools[spec] = replace(pool, available=0, waiting=waiting)


def all_empty() -> dict[str, PoolView]:
    return {spec: view(spec) for spec in MAKEABLE}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_empty_pools_fill_in_little_more_than_the_work_takes(count: int) -> None:
    simulation = Simulation(count, all_empty())
    simulation.run(until=1000)
    assert all(pool.available == pool.target for pool in simulation.pools.values())
    work_s = sum(pool.target * pool.cost_s for pool in simulation.pools.values())
    assert simulation.now <= work_s / count + 2 * SPECS["RSA_4096"].keygen_cost_s


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_pool_has_pairs_soon(count: int) -> None:
    """Long before the first pool is full, no pool is empty."""
    simulation = Simulation(count, all_empty())
    simulation.run(until=12 / count)
    assert all(pool.available for pool in simulation.pools.values())
    assert not any(pool.available >= pool.target for pool in simulation.pools.values() if "RSA" in pool.spec)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("greedy", ["RSA_4096", "RSA_2048", "ECC_NIST_P256"])
def test_no_pool_starves_beside_one_that_is_emptied_again_and_again(greedy: str, count: int) -> None:
    """Nobody waits, but whatever is made of one spec is taken at once."""
    simulation = Simulation(count, all_empty())
    simulation.run(until=150, ask=lambda it: it.want(greedy, waiting=0))
    for spec, pool in simulation.pools.items():
        assert spec == greedy or pool.available >= pool.low_water, spec


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("greedy", ["RSA_2048", "ECC_NIST_P256"])
def test_a_client_is_served_however_many_wait_for_a_cheaper_pair(greedy: str, count: int) -> None:
    """More clients wait for ``greedy`` at every moment than makers can serve."""

    def ask(it: Simulation) -> None:
        it.want(greedy, waiting=2000)
        it.want("RSA_4096", waiting=1)

    simulation = Simulation(count, all_empty())
    simulation.run(until=30, ask=ask)
    assert simulation.served["RSA_4096"] >= 5
    assert simulation.served[greedy] > simulation.served["RSA_4096"]


# --- draws

held_by_shard = st.dictionaries(st.integers(0, 5), st.integers(0, 100))


@given(st.integers(-5, 200), held_by_shard, st.sets(st.integers(0, 5)))
def test_draws_ask_for_what_is_missing_from_shards_that_have_it(
    missing: int, held: dict[int, int], under_way: set[int]
) -> None:
    result = draws(missing, held, under_way)
    asked = dict(result)
    assert len(asked) == len(result)
    assert all(0 < count <= held[shard] for shard, count in result)
    assert not set(asked) & under_way
    reachable = sum(count for shard, count in held.items() if shard not in under_way)
    assert sum(asked.values()) == max(0, min(missing, reachable))


def test_the_fullest_shard_is_drawn_from_first() -> None:
    assert draws(5, {0: 3, 1: 10, 2: 4}, []) == [(1, 5)]
    assert draws(12, {0: 3, 1: 10, 2: 4}, []) == [(1, 10), (2, 2)]
    assert draws(12, {0: 3, 1: 10, 2: 4}, [1]) == [(2, 4), (0, 3)]


def test_a_busy_maker_gets_a_second_order_unless_somebody_waits() -> None:
    """It need not sleep in between; but what waits behind an order could not be planned anew for a client."""
    orders = follow_ups([view("RSA_2048")], makers(2), crew(2))
    assert [(order.maker, order.spec, order.count) for order in orders] == [
        (0, "RSA_2048", 1),
        (1, "RSA_2048", 1),
    ]
    assert follow_ups([view("RSA_2048"), view("ECC_NIST_P256", waiting=1)], makers(2), crew(2)) == []


def test_no_long_key_is_a_second_order() -> None:
    assert follow_ups([view("RSA_4096")], makers(2), crew(2)) == []


def test_a_maker_whose_turn_is_a_long_key_gets_no_short_order_before_it() -> None:
    """Else makers busy with short keys would never come to the long ones while those are missing."""
    emptier = [view("RSA_2048", 100), view("RSA_4096", 0)]
    assert follow_ups(emptier, makers(1), crew(2)) == []
    neglected = [view("RSA_2048", 0), replace(view("RSA_4096", 7), neglected_s=PATIENCE_S)]
    assert follow_ups(neglected, makers(1), crew(2)) == []


# --- demand, manners, users


def test_the_pool_that_will_be_empty_soonest_goes_first() -> None:
    busy, idle = replace(view("ECC_NIST_P256", 200), rate=50.0), view("RSA_2048", 100)
    assert first([busy, idle]) == "ECC_NIST_P256"
    assert first([replace(busy, rate=0.0), idle]) == "RSA_2048"


def test_a_pool_keeps_its_turn_until_it_has_doubled_what_it_will_last() -> None:
    """From the low watermark to the target it is a factor of four, in parts of three powers."""
    simulation = Simulation(
        1, {spec: view(spec, SPECS[spec].low_water) for spec in ("RSA_2048", "RSA_3072", "RSA_4096")}
    )
    made: list[str] = []
    finish = simulation._finish

    def noted(order: Order) -> None:
        made.append(order.spec)
        finish(order)

    simulation._finish = noted  # type: ignore[method-assign]
    simulation.run(until=1000)
    changes = sum(one != other for one, other in itertools.pairwise(made))
    assert len(made) == (256 + 64 + 32) * 3 // 4
    assert changes <= 3 * 3


@given(st.permutations(MAKEABLE), st.integers(1, 4))
def test_the_order_of_the_pools_makes_no_difference(specs: list[str], count: int) -> None:
    assert plan([view(spec, 10) for spec in specs], makers(count), crew(count)) == plan(
        [view(spec, 10) for spec in MAKEABLE], makers(count), crew(count)
    )


def test_above_the_low_watermark_no_more_makers_work_than_manners_leave() -> None:
    leisurely = [view("RSA_2048", 100), view("ECC_NIST_P256", 100)]
    assert plan(leisurely, makers(4), crew(4, leisure=0)) == []
    assert len(plan(leisurely, makers(4), crew(4, leisure=1))) == 1
    assert follow_ups(leisurely, makers(4), crew(4, leisure=0)) == []


def test_what_is_urgent_is_made_whatever_manners_say() -> None:
    below = [view("RSA_2048", 62), view("ECC_NIST_P256", 100)]
    assert [order.spec for order in plan(below, makers(4), crew(4, leisure=0))] == ["RSA_2048"] * 2
    waited_for = [view("RSA_2048", 64, waiting=65), view("ECC_NIST_P256", 100)]
    assert {order.spec for order in plan(waited_for, makers(4), crew(4, leisure=0))} == {"RSA_2048"}
    on_demand = replace(view("RSA_2048", waiting=1), target=0, low_water=0)
    assert len(plan([on_demand], makers(4), crew(4, leisure=0))) == 1


def test_a_client_who_cost_little_goes_before_the_hundreds_of_one_who_cost_much() -> None:
    hundreds = replace(view("RSA_2048", waiting=200), burden_s=13.0)
    modest = replace(view("RSA_4096", waiting=1), burden_s=0.7)
    assert first([hundreds, modest]) == "RSA_4096"
    assert first([replace(hundreds, burden_s=0.7), modest]) == "RSA_2048"  # the same user's: cheapest first


def test_ready_sets_follow_the_demand_within_their_bounds() -> None:
    assert [ready_target(1000, rate) for rate in (0.0, 200.0, 1e6)] == [MIN_READY, 20, MAX_READY - 6]
    assert ready_target(10**6, 1e6) == MAX_READY
    assert ready_target(8, 1e6) == 2
    assert ready_target(0, 5.0) == 0


def test_a_cheap_pair_that_may_not_be_made_now_keeps_no_maker_from_a_long_one() -> None:
    pools = [view("RSA_4096", waiting=5), view("ECC_NIST_P256", 255)]
    orders = plan(pools, makers(2), crew(2, leisure=0))
    assert [order.spec for order in orders] == ["RSA_4096", "RSA_4096"]
