"""The rules in the simulator: baselines do what they say, and kpcache's own do better where they should."""

import math
import random

import pytest

from kpcache.core.targets import needed
from kpcache.simulator import loads
from kpcache.simulator.baselines import DELAY_S
from kpcache.simulator.engine import run
from kpcache.simulator.loads import Load, machine, poisson
from kpcache.simulator.policy import KpcacheRules, Settings
from kpcache.simulator.scores import Scores, fair_parts, score
from kpcache.simulator.world import Arrival, Ending, PoolSize, Request, World
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

LOADS = loads.made_up(quick=True)


def scored(load: Load, make: Make) -> Scores:
    return score(ran(load, make), load.machine.cost_s)


# Baselines


def test_a_fixed_buffer_makes_keys_in_the_order_of_the_takes() -> None:
    arrivals = [*asks(10.0), *asks(10.01, spec=EC), *asks(10.02)]
    load = load_of([*arrivals, *asks(10.03, spec=EC)], {RSA: PoolSize(2, 2), EC: PoolSize(1, 1)})
    # RSA until 11, EC until 11.1: who waits for the cheap pair waits behind the costly one.
    assert told(ran(load, luck=Even()))[-1] == (Ending.GIVEN, 11.1)


def test_a_fixed_buffer_knows_no_users() -> None:
    arrivals = [*asks(*[10.0] * 9, uid=1), *asks(10.001, uid=2, wait_s=3.0)]
    load = load_of(arrivals, {RSA: PoolSize(2, 2)})
    assert told(ran(load, luck=Even()))[-1] == (Ending.TIMED_OUT, 13.001)
    assert told(ran(load, kpcache, luck=Even()))[-1] == (Ending.GIVEN, 12.0)  # in turn: the second


def test_min_and_max_fill_at_full_rate_up_to_the_low_watermark_and_then_one_in_each_delay() -> None:
    cost_s, size = 0.01, PoolSize(20, 10)
    load = load_of(asks(*[1.0] * 20), {EC: size}, cost_s={EC: cost_s})
    load = load_of([Arrival(1.0, 1, EC, 5.0)] * 20, {EC: size}, cost_s={EC: cost_s}, until_s=10.0)
    result = run(load, min_max_delay(load), load.arrivals(random.Random(1)), Even(), samples=200)
    levels = {round(at_s, 2): counts[0] for at_s, counts in result.levels}
    assert levels[1.05] < 10
    assert 10 <= levels[1.15] <= 11  # ten keys of 10 ms
    after_s = 1.15 + (20 - 11) * DELAY_S
    assert levels[round(after_s - 0.4, 2)] < 20
    assert levels[round(after_s + 0.3, 2)] == 20


def test_min_and_max_have_one_worker_for_each_spec() -> None:
    load = load_of(asks(*[10.0] * 4), {RSA: PoolSize(2, 2)}, cores=4)
    assert [at_s for _, at_s in told(ran(load, min_max_delay, luck=Even()))] == [10.0, 10.0, 11.0, 12.0]


# kpcache's rules: what they tell the plan


def behind(world: World, pools: dict[str, PoolSize]) -> KpcacheRules:
    return KpcacheRules(world, pools, Settings())


def placed(world: World, rules: KpcacheRules, now: float) -> list[str]:
    orders = rules.plan(now)
    for order in orders:
        world.place(order)
    return [order.spec for order in orders]


def world_of(at_hand: dict[str, int]) -> World:
    """One maker, that has proved itself."""
    world = World(machine(1), at_hand)
    world.makers[0].proved = True
    for spec, count in at_hand.items():
        world.put(spec, 0, count)
    return world


def test_the_plan_goes_by_what_is_asked_for() -> None:
    pools = {RSA: PoolSize(40, 4), "RSA_3072": PoolSize(40, 4)}
    world = world_of({RSA: 20, "RSA_3072": 20})
    rules = behind(world, pools)
    for request in (Request(*each) for each in asks(*[0.5] * 30)):
        assert rules.asks(request, 0.5)
        rules.took(request)
    assert placed(world, rules, 0.5) == [RSA, RSA]
    # Without that demand the costlier one goes first.
    world = world_of({RSA: 20, "RSA_3072": 20})
    assert placed(world, behind(world, pools), 0.5) == ["RSA_3072"]


def test_the_plan_is_told_how_long_a_pool_has_been_neglected() -> None:
    world = world_of({RSA: 0, EC: 4})
    rules = behind(world, {RSA: PoolSize(40, 30), EC: PoolSize(20, 5)})
    assert placed(world, rules, 0.0) == [RSA, RSA]
    world.hand_over(world.makers[0], 1)
    world.hand_over(world.makers[0], 1)
    assert placed(world, rules, 2.0) == [EC, RSA]


def test_the_plan_is_told_what_makers_owe_for_those_who_wait() -> None:
    def first_order(taken: int) -> str:
        world = world_of({RSA: 0, "RSA_4096": 0})
        rules = behind(world, {RSA: PoolSize(100, 1), "RSA_4096": PoolSize(4, 1)})
        for uid, spec, count in ((1, RSA, 1), (2, "RSA_4096", 1)):
            for _ in range(count):
                assert rules.asks(Request(0.0, uid, spec, 60.0), 0.0) is None
        for _ in range(taken):
            rules.took(Request(0.0, 1, RSA, 60.0))
        return placed(world, rules, 0.0)[0]

    assert first_order(taken=0) == RSA
    assert first_order(taken=20) == "RSA_4096"


def test_a_busy_maker_gets_a_second_order_while_nobody_waits() -> None:
    world = world_of({RSA: 0})
    rules = behind(world, {RSA: PoolSize(10, 2)})
    assert placed(world, rules, 0.0) == [RSA, RSA]
    assert placed(world, rules, 0.1) == []
    world.hand_over(world.makers[0], 1)
    assert placed(world, rules, 0.2) == [RSA]
    world.hand_over(world.makers[0], 1)
    assert rules.asks(Request(0.3, 1, RSA, 60.0), 0.3)
    for _ in range(2):
        world.take(RSA)
    assert rules.asks(Request(0.3, 1, RSA, 60.0), 0.3) is None
    assert placed(world, rules, 0.3) == []


# kpcache's rules: what comes of them


def test_a_request_that_cannot_be_served_in_time_is_told_at_once() -> None:
    load = load_of(asks(*[10.0] * 20), {RSA: PoolSize(1, 1)})
    endings = told(ran(load, kpcache, luck=Even()))
    refused = [at_s for ending, at_s in endings if ending is Ending.REFUSED]
    assert refused
    assert set(refused) == {10.0}
    # Who is let in is served: five keys can be made in the five seconds, and luck may help.
    assert sum(ending is Ending.GIVEN for ending, _ in endings) >= 5


def test_a_lost_shard_is_made_good_by_the_other() -> None:
    load = LOADS["worker lost"]
    result = ran(load, kpcache)
    assert sum(result.lost.values()) > 0
    assert sum(each.ending is Ending.GIVEN for each in result.requests) > 0.9 * len(result.requests)


def test_after_a_burst_of_a_whole_pool_it_is_full_again_and_makers_rest() -> None:
    size = loads.default_pools(RSA)[RSA]
    arrivals = asks(*[10.0] * size.target)
    load = load_of(arrivals, {RSA: size}, cores=2, cost_s={RSA: 0.065}, until_s=60.0)
    result = ran(load, kpcache)
    assert result.left == {RSA: size.target}
    assert result.made == result.given == {RSA: size.target}
    assert result.switches == 0
    # Nothing is made beyond that: the CPU is what those pairs take, and luck.
    assert result.cpu_s == pytest.approx(size.target * 0.065, rel=0.2)


def test_adaptive_targets_rise_with_the_demand() -> None:
    load = LOADS["thousand clients"]
    rules: list[KpcacheRules] = []

    def make(world: World) -> KpcacheRules:
        made = auto(load)(world)
        assert isinstance(made, KpcacheRules)
        rules.append(made)
        return made

    run(load, make, load.arrivals(random.Random(1)), random.Random(2))
    size = rules[0].sizes()[RSA]
    assert size.target > load.pools[RSA].target
    assert size.low_water == size.target // 4
    assert scored(load, auto).dry_share < 0.7 * scored(load, kpcache).dry_share


def test_one_that_is_greedy_takes_nothing_from_the_others() -> None:
    load = LOADS["greedy"]
    parts = fair_parts(ran(load, kpcache).requests, load.machine.cost_s)
    assert min(parts.values()) > 0.9
    for make in (refill_on_take, min_max_delay):
        assert min(fair_parts(ran(load, make).requests, load.machine.cost_s).values()) < 0.2


def test_without_shares_the_greedy_one_empties_the_pool_of_the_others() -> None:
    load = LOADS["greedy"]

    def polite_dry(kept_percent: float) -> float:
        result = run(
            load,
            lambda world: KpcacheRules(world, load.pools, Settings(kept_percent=kept_percent)),
            load.arrivals(random.Random(1)),
            random.Random(2),
        )
        polite = [each for each in result.requests if each.uid != 1000]
        return sum(not each.found for each in polite) / len(polite)

    assert polite_dry(25.0) < 0.05
    assert polite_dry(0.0) > 0.5


@pytest.mark.parametrize("load", LOADS.values(), ids=lambda load: load.name)
def test_kpcache_beats_min_and_max_with_a_delay(load: Load) -> None:
    ours, theirs = scored(load, kpcache), scored(load, min_max_delay)
    assert ours.dry_share < theirs.dry_share
    assert ours.served_share >= theirs.served_share - 0.005
    assert ours.wait_p99_s <= theirs.wait_p99_s
    assert ours.fairness >= theirs.fairness - 0.001


@pytest.mark.parametrize("load", LOADS.values(), ids=lambda load: load.name)
def test_kpcache_is_nowhere_much_worse_than_a_buffer_refilled_on_take(load: Load) -> None:
    ours, theirs = scored(load, kpcache), scored(load, refill_on_take)
    assert ours.dry_share <= theirs.dry_share + 0.1
    assert ours.served_share >= theirs.served_share - 0.01
    assert ours.fairness >= theirs.fairness - 0.01


def test_kpcache_beats_a_buffer_refilled_on_take_in_bursts() -> None:
    # Of all bursts of the whole load, since a few are luck.
    load = loads.made_up()["bursts"]
    ours, theirs = scored(load, kpcache), scored(load, refill_on_take)
    assert ours.dry_share < 0.9 * theirs.dry_share
    assert ours.wait_p99_s < 0.8 * theirs.wait_p99_s
    assert ours.switch_share < 0.6 * theirs.switch_share


@pytest.mark.parametrize(("cores", "use"), [(1, 0.8), (2, 0.9), (8, 0.9)])
def test_a_pool_of_the_size_needed_is_dry_no_more_often_than_it_may_be(cores: int, use: float) -> None:
    chance, cost_s, requests = 0.02, 0.065, 10_000
    rate = use * cores / cost_s
    until_s = requests / rate
    dry = []
    for target in (
        needed(rate, 1.0, use, 2 * cost_s, chance),
        math.ceil(needed(rate, 1.0, use, 0, chance) / 4),
    ):
        pools = {RSA: PoolSize(target, target // 4)}
        load = Load(
            "", "", until_s, machine(cores, 2, {RSA: cost_s}), pools,
            lambda luck: poisson(luck, RSA, rate, until_s, [1]),
        )  # fmt: skip
        dry.append(scored(load, kpcache).dry_share)
    assert dry[0] <= chance
    # The formula is an upper bound, but no wild one: a quarter of the queue's part is far too little.
    assert dry[1] > 2 * chance
