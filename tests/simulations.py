"""Small loads for the simulator, and each of the rules to run them with."""

import random
from collections.abc import Callable, Mapping, Sequence

from kpcache.core.targets import Bounds
from kpcache.simulator.baselines import MinMaxDelay, RefillOnTake
from kpcache.simulator.engine import Rules, Run, run
from kpcache.simulator.loads import Load, machine
from kpcache.simulator.policy import KpcacheRules, Settings
from kpcache.simulator.world import Arrival, Ending, Loss, PoolSize, World

EC, RSA = "ECC_NIST_P256", "RSA_2048"
Make = Callable[[Load], Callable[[World], Rules]]


class Even(random.Random):
    """No luck at all: every key takes its mean."""

    def expovariate(self, lambd: float = 1.0) -> float:
        return 1 / lambd

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def load_of(
    arrivals: Sequence[Arrival],
    pools: Mapping[str, PoolSize],
    *,
    until_s: float = 100.0,
    cores: int = 1,
    cost_s: Mapping[str, float] | None = None,
    losses: Sequence[Loss] = (),
) -> Load:
    costs = cost_s or {RSA: 1.0, EC: 0.1}
    return Load("case", "", until_s, machine(cores, 2, costs), pools, lambda _: iter(arrivals), losses)


def kpcache(load: Load) -> Callable[[World], Rules]:
    return lambda world: KpcacheRules(world, load.pools, Settings())


def auto(load: Load) -> Callable[[World], Rules]:
    bounds = {spec: Bounds(size.target, size.target * 4, 1) for spec, size in load.pools.items()}
    return lambda world: KpcacheRules(world, load.pools, Settings(adaptive=bounds))


def refill_on_take(load: Load) -> Callable[[World], Rules]:
    return lambda world: RefillOnTake(world, load.pools)


def min_max_delay(load: Load) -> Callable[[World], Rules]:
    return lambda world: MinMaxDelay(world, load.pools)


def ran(load: Load, make: Make = refill_on_take, seed: int = 1, luck: random.Random | None = None) -> Run:
    return run(load, make(load), load.arrivals(random.Random(seed)), luck or random.Random(seed + 1000))


def told(result: Run) -> list[tuple[Ending | None, float]]:
    return [(each.ending, round(each.ended_s, 6)) for each in result.requests]


def asks(*times_s: float, spec: str = RSA, wait_s: float = 5.0, uid: int = 1) -> list[Arrival]:
    return [Arrival(at_s, uid, spec, wait_s) for at_s in times_s]
