"""The engine of the simulator, on cases small enough to be followed by hand, and the books it keeps."""

import random
from collections.abc import Sequence

import pytest

from kpcache.core.targets import SERVICE_VARIATION
from kpcache.simulator import loads
from kpcache.simulator.baselines import RefillOnTake
from kpcache.simulator.engine import run
from kpcache.simulator.loads import Load, machine
from kpcache.simulator.world import Ending, Loss, Machine, Order, PoolSize, World, cpu_s
from tests.simulations import (
    EC,
    RSA,
    Even,
    Make,
    asks,
    auto,
    kpcache,
    load_of,
    min_max_delay,
    ran,
    refill_on_take,
    told,
)

# By hand


def test_pairs_at_hand_are_given_at_once_and_the_next_wait_for_one_to_be_made() -> None:
    # A key takes 1 s. The pool of one is empty at 10 and the key begun then is there at 11, the next at 12.
    load = load_of(asks(10.0, 10.1, 10.2), {RSA: PoolSize(1, 1)})
    result = ran(load, luck=Even())
    given = Ending.GIVEN
    assert told(result) == [(given, 10.0), (given, 11.0), (given, 12.0)]
    assert [each.found for each in result.requests] == [True, False, False]
    assert (result.made, result.left) == ({RSA: 3}, {RSA: 1})
    assert result.cpu_s == pytest.approx(3.0)


def test_who_has_waited_for_its_time_gets_nothing_and_costs_nothing() -> None:
    load = load_of(asks(10.0, 10.1, wait_s=0.5), {RSA: PoolSize(1, 1)})
    result = ran(load, luck=Even())
    assert told(result) == [(Ending.GIVEN, 10.0), (Ending.TIMED_OUT, 10.6)]
    assert (result.made, result.given, result.left) == ({RSA: 1}, {RSA: 1}, {RSA: 1})


def test_a_key_is_there_for_the_one_whose_time_is_not_over() -> None:
    load = load_of([*asks(10.0, 10.1, wait_s=0.5), *asks(10.2)], {RSA: PoolSize(1, 1)})
    assert told(ran(load, luck=Even()))[1:] == [(Ending.TIMED_OUT, 10.6), (Ending.GIVEN, 11.0)]


def test_two_makers_work_side_by_side() -> None:
    load = load_of(asks(10.0, 10.0, 10.0, 10.0), {RSA: PoolSize(2, 2)}, cores=2)
    assert [at_s for _, at_s in told(ran(load, luck=Even()))] == [10.0, 10.0, 11.0, 11.0]


def test_a_lost_shard_takes_its_pairs_and_its_key_and_comes_back() -> None:
    # Each shard holds two pairs. One of shard 0's is taken at 10; at 10.5 the other is lost, and the key that
    # its maker has begun. Shard 1 makes both until 12.5.
    load = load_of(asks(10.0, 30.0, 30.0), {RSA: PoolSize(4, 4)}, cores=2, losses=[Loss(10.5, 0, 20.0)])
    result = run(load, refill_on_take(load), load.arrivals(random.Random(1)), Even(), samples=100)
    levels = dict(result.levels)
    assert [levels[at_s][0] for at_s in (9, 11, 12, 13, 29)] == [4, 2, 3, 4, 4]
    assert [at_s for _, at_s in told(result)] == [10.0, 30.0, 30.0]
    assert (result.lost, result.left) == ({RSA: 1}, {RSA: 4})
    # The key that was lost half-way had its half second of CPU.
    assert result.cpu_s == pytest.approx(0.5 + 2 + 2)


def test_a_lost_maker_is_given_no_orders_until_it_is_back() -> None:
    placed: list[tuple[float, int]] = []

    class Watched(RefillOnTake):
        def plan(self, now: float) -> Sequence[Order]:
            orders = super().plan(now)
            placed.extend((now, order.maker) for order in orders)
            return orders

    load = load_of(asks(*range(10, 40)), {RSA: PoolSize(8, 2)}, cores=2, losses=[Loss(15.2, 0, 30.0)])
    ran(load, lambda load: lambda world: Watched(world, load.pools), luck=Even())
    assert {maker for at_s, maker in placed if 15.2 <= at_s < 30.0} == {1}
    assert {maker for at_s, maker in placed if at_s >= 30.0} == {0, 1}


def test_a_switch_is_an_order_of_another_spec() -> None:
    arrivals = [*asks(10.0), *asks(20.0, spec=EC), *asks(30.0, spec=EC), *asks(40.0)]
    result = ran(load_of(arrivals, {RSA: PoolSize(1, 1), EC: PoolSize(1, 1)}), luck=Even())
    assert (result.orders, result.switches) == (4, 2)


def test_levels_are_noted_at_even_times() -> None:
    load = load_of(asks(10.0), {RSA: PoolSize(3, 1)}, cost_s={RSA: 20.0})
    result = run(load, refill_on_take(load), load.arrivals(random.Random(1)), Even(), samples=4)
    assert result.levels == [(0.0, [3]), (25.0, [2]), (50.0, [3]), (75.0, [3])]


def test_key_times_have_the_mean_and_the_variation_that_the_formula_takes() -> None:
    luck = random.Random(1)
    times = [cpu_s(RSA, 0.1, 1, luck) for _ in range(20_000)]
    mean = sum(times) / len(times)
    variance = sum((each - mean) ** 2 for each in times) / len(times)
    assert mean == pytest.approx(0.1, rel=0.03)
    assert variance / mean**2 == pytest.approx(SERVICE_VARIATION, rel=0.06)
    assert cpu_s(EC, 0.1, 10, Even()) == pytest.approx(1.0)


# The books, whatever the rules and the load


QUICK = list(loads.made_up(quick=True).values())


@pytest.mark.parametrize("make", [kpcache, auto, refill_on_take, min_max_delay])
@pytest.mark.parametrize("load", QUICK, ids=lambda load: load.name)
def test_every_pair_is_in_one_place_and_every_request_ends_once(load: Load, make: Make) -> None:
    arrivals = list(load.arrivals(random.Random(1)))
    result = ran(load, make)
    for spec in load.pools:
        assert result.start[spec] + result.made[spec] == (
            result.given[spec] + result.lost[spec] + result.left[spec]
        )
        assert min(result.left[spec], result.lost[spec], result.made[spec]) >= 0
    assert [(each.at_s, each.uid, each.spec, each.wait_s) for each in result.requests] == arrivals
    for each in result.requests:
        assert each.ending is not None
        assert 0 <= each.ended_s - each.at_s <= each.wait_s + 1e-9
        assert (each.ended_s == each.at_s) == (each.found or each.ending is Ending.REFUSED)
    assert sum(result.given.values()) == sum(each.ending is Ending.GIVEN for each in result.requests)
    assert 0 < result.cpu_s <= load.machine.cores * (load.duration_s + loads.WAIT_S)


def test_the_same_seeds_give_the_same_run_and_others_another() -> None:
    load = loads.made_up(quick=True)["bursts"]
    first, second, other = ran(load, kpcache), ran(load, kpcache), ran(load, kpcache, seed=2)
    assert told(first) == told(second)
    assert first.cpu_s == second.cpu_s
    assert told(first) != told(other)


# Loads


def test_a_recorded_load_is_read_as_it_was_written() -> None:
    arrivals = list(loads.made_up(quick=True)["steady"].arrivals(random.Random(1)))
    again = loads.read(loads.written(arrivals))
    assert [(each.uid, each.spec) for each in again] == [(each.uid, each.spec) for each in arrivals]
    assert all(abs(a.at_s - b.at_s) < 1e-5 for a, b in zip(again, arrivals, strict=True))
    load = loads.recorded(again, cores=2)
    assert set(load.pools) == {each.spec for each in arrivals}
    assert len(ran(load, kpcache).requests) == len(arrivals)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "line 1"),
        (["time,uid,spec"], "line 1"),
        (["time_s,uid,spec", "1.0,1"], "line 2"),
        (["time_s,uid,spec", "1.0,1,RSA_2048", "x,1,RSA_2048"], "line 3"),
        (["time_s,uid,spec", "-1,1,RSA_2048"], "line 2"),
        (["time_s,uid,spec", "nan,1,RSA_2048"], "line 2"),
        (["time_s,uid,spec", "1,1,SM2"], "line 2"),
    ],
)
def test_a_recorded_load_that_is_none_is_refused_by_line(lines: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        loads.read(lines)


@pytest.mark.parametrize("load", QUICK, ids=lambda load: load.name)
def test_arrivals_come_in_order_within_the_load_and_for_its_pools(load: Load) -> None:
    arrivals = list(load.arrivals(random.Random(3)))
    assert arrivals == sorted(arrivals)
    assert {each.spec for each in arrivals} == set(load.pools)
    # A burst that begins at the end of a load may go on a little.
    assert 0 <= arrivals[0].at_s <= arrivals[-1].at_s < load.duration_s + 10


def test_the_greedy_one_asks_for_a_hundred_times_its_share() -> None:
    load = loads.made_up()["greedy"]
    arrivals = list(load.arrivals(random.Random(1)))
    share = load.duration_s * load.machine.cores / load.machine.cost_s["RSA_3072"] / 5
    counts = [sum(each.uid == uid for each in arrivals) / share for uid in range(1000, 1005)]
    assert counts == [pytest.approx(100, rel=0.02), *[pytest.approx(0.8, rel=0.2)] * 4]


def test_no_shard_is_without_a_maker() -> None:
    assert machine(1) == Machine(1, 1, machine(1).cost_s)
    assert {maker.shard for maker in World(machine(5, 8), [RSA]).makers} == set(range(5))
