"""A pair leaves the ready set once, for one caller; whatever goes wrong then, it is burnt and counted."""

import dataclasses
from collections.abc import Callable

import pytest
import trio
import trio.testing

from kpcache.core import desk
from kpcache.core.buckets import Rule
from kpcache.core.fair_queue import Identity
from kpcache.core.forecast import Forecast
from kpcache.core.pair import Pair
from kpcache.core.refill import MIN_READY
from kpcache.daemon import stock as stock_module
from kpcache.daemon.dispatcher import not_issuing
from kpcache.daemon.pools import Pool, PoolPlan, Waiter
from kpcache.daemon.retirement import retire_old
from kpcache.daemon.stock import DRAW_GRACE_S
from kpcache.errors import DisabledException, KpcacheError, ThrottlingException
from tests.fakes import SPEC, WHO, FakeShards, book_is_balanced, fake_pair, mock_clock

RSA = "RSA_2048"


def still_fine() -> None:
    """Nothing has changed for a request while it waited."""


async def outcome(shards: FakeShards, wait_s: float, results: list[object]) -> None:
    """Wait for a pair and note what came, in order of coming."""
    try:
        results.append(await shards.stock.wait(shards.stock.join_queue(SPEC, wait_s, WHO, still_fine)))
    except ThrottlingException as error:
        results.append((error.reason, trio.current_time()))


# --- taking


@mock_clock
async def test_a_pair_is_out_of_the_ready_set_before_its_taker_owns_it() -> None:
    shards = FakeShards()
    shards.fill(8)
    stock, pool = shards.stock, shards.stock.pools[SPEC]
    ready = list(pool.ready)
    taken = []
    while pair := stock.take_nowait(SPEC, WHO):
        assert pair not in pool.ready
        taken.append(pair)
        while shards.draws:
            ready += shards.deliver()
    assert taken == ready
    assert len(set(map(id, taken))) == len(taken) == 8
    assert pool.book.in_hand == 8
    for _ in taken[:5]:
        stock.issue(SPEC)
    for _ in taken[5:]:
        stock.burn(SPEC, "client_gone")
    assert (pool.book.issued, pool.book.in_hand, pool.book.discarded) == (5, 0, {"client_gone": 3})
    assert book_is_balanced(stock)


@mock_clock
async def test_a_taken_pair_is_settled_once() -> None:
    shards = FakeShards()
    shards.fill(2)
    assert shards.stock.take_nowait(SPEC, WHO)
    shards.stock.issue(SPEC)
    with pytest.raises(Exception, match="1 pairs from taken"):
        shards.stock.issue(SPEC)
    with pytest.raises(Exception, match="1 pairs from taken"):
        shards.stock.burn(SPEC, "client_gone")


@mock_clock
async def test_pairs_are_drawn_before_they_are_needed_and_few_at_a_time() -> None:
    shards = FakeShards({RSA: PoolPlan(1000, 10)})
    pool = shards.stock.pools[RSA]
    shards.hold(500, RSA)
    assert shards.draws == [(0, RSA, MIN_READY)]
    shards.deliver()
    assert (len(pool.ready), shards.draws) == (MIN_READY, [])
    for _ in range(MIN_READY // 2 - 1):
        assert shards.stock.take_nowait(RSA, WHO)
    assert shards.draws == []
    assert shards.stock.take_nowait(RSA, WHO)
    assert shards.draws == [(0, RSA, MIN_READY // 2)]
    assert shards.stock.take_nowait(RSA, WHO)
    assert len(shards.draws) == 1  # one at a time from a shard
    assert book_is_balanced(shards.stock)


@mock_clock
async def test_the_plan_is_asked_for_whenever_pairs_leave() -> None:
    shards = FakeShards()
    shards.fill(8)
    before = shards.plans_asked
    assert shards.stock.take_nowait(SPEC, WHO)
    assert shards.plans_asked > before


# --- waiting


@mock_clock
async def test_waiters_are_served_in_the_order_of_asking() -> None:
    shards = FakeShards()
    got: list[tuple[int, Pair]] = []

    async def client(number: int) -> None:
        got.append((number, await shards.stock.wait(shards.stock.join_queue(SPEC, 5.0, WHO, still_fine))))

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(client, number)
            await trio.testing.wait_all_tasks_blocked()
        assert shards.stock.take_nowait(SPEC, WHO) is None
        sent = []
        for _ in range(4):
            shards.hold(1)
            sent += shards.deliver()
            assert not shards.stock.pools[SPEC].ready  # no passer-by can take what a waiter is owed
            await trio.testing.wait_all_tasks_blocked()
    assert got == list(enumerate(sent))
    assert shards.stock.pools[SPEC].book.in_hand == 4


@mock_clock
async def test_the_order_of_asking_is_that_of_the_calls_not_of_the_tasks() -> None:
    """Tasks started in one turn run in any order; places in the queue are taken before."""
    shards = FakeShards()
    places = [shards.stock.join_queue(SPEC, 5.0, WHO, still_fine) for _ in range(20)]
    shards.hold(20)
    sent = shards.deliver()
    got: dict[int, Pair] = {}

    async def client(number: int) -> None:
        got[number] = await shards.stock.wait(places[number])

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(client, number)
    assert got == dict(enumerate(sent))


@mock_clock
async def test_those_who_wait_in_vain_are_told_at_once() -> None:
    """At the alarm nothing will come: no one waits out its time, no place is left."""
    shards = FakeShards()
    refused: list[KpcacheError] = []

    async def client() -> None:
        try:
            await shards.stock.wait(shards.stock.join_queue(SPEC, 5.0, WHO, still_fine))
        except KpcacheError as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client)
        nursery.start_soon(client)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        shards.stock.dismiss_queues(not_issuing)
    assert trio.current_time() == start
    assert [error.reason for error in refused] == ["not_issuing"] * 2
    assert refused[0] is not refused[1]  # raised twice, it would hold on to both tasks' frames
    assert not shards.stock.pools[SPEC].desk.queue


@mock_clock
async def test_a_pair_made_ready_between_the_first_look_and_the_wait_is_taken() -> None:
    """A request finds nothing, its task is started, and before that runs a draw arrives."""
    shards = FakeShards()
    shards.hold(1)
    assert shards.stock.take_nowait(SPEC, WHO) is None
    sent = shards.deliver()
    with trio.fail_after(0.5):
        assert await shards.stock.wait(shards.stock.join_queue(SPEC, 0.0, WHO, still_fine)) is sent[0]
    assert shards.stock.pools[SPEC].book.dry == 0


@mock_clock
async def test_on_a_dry_pool_wait_0_is_refused_at_once_and_counted() -> None:
    shards = FakeShards()
    with pytest.raises(ThrottlingException) as caught, trio.fail_after(0):
        await shards.stock.wait(shards.stock.join_queue(SPEC, 0.0, WHO, still_fine))
    assert (caught.value.reason, caught.value.retry_after_s) == ("pool_dry", 1.0)
    assert shards.stock.pools[SPEC].book.dry == 1
    assert not shards.stock.pools[SPEC].desk.queue


@mock_clock
async def test_held_pairs_are_no_dry_pool_even_for_wait_0() -> None:
    shards = FakeShards()
    shards.hold(1)
    results: list[object] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outcome, shards, 0.0, results)
        await trio.testing.wait_all_tasks_blocked()
        # The one that is held is promised to the first: for a second there is none.
        with pytest.raises(ThrottlingException):
            await shards.stock.wait(shards.stock.join_queue(SPEC, 0.0, WHO, still_fine))
        await trio.sleep(DRAW_GRACE_S / 2)
        sent = shards.deliver()
    assert results == sent
    assert shards.stock.pools[SPEC].book.dry == 1


@mock_clock
async def test_a_wait_ends_at_its_time_and_leaves_no_place_in_the_queue() -> None:
    shards = FakeShards()
    results: list[object] = []
    start = trio.current_time()
    await outcome(shards, 2.5, results)
    assert results == [("pool_dry", pytest.approx(start + 2.5))]
    shards.fill(1)
    assert len(shards.stock.pools[SPEC].ready) == 1  # it was not handed to the one who left
    assert book_is_balanced(shards.stock)


@mock_clock
async def test_a_draw_that_never_comes_is_waited_for_no_longer_than_its_grace() -> None:
    shards = FakeShards()
    shards.hold(1)
    results: list[object] = []
    start = trio.current_time()
    await outcome(shards, 0.0, results)
    assert results == [("pool_dry", pytest.approx(start + DRAW_GRACE_S))]


@mock_clock
async def test_beyond_so_many_waiters_a_caller_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "MAX_WAITING", 4)
    shards = FakeShards()
    for uid in (1, 2, 3, 4):
        shards.stock.join_queue(SPEC, 5.0, Identity(uid), still_fine)
    with pytest.raises(ThrottlingException) as caught:
        shards.stock.join_queue(SPEC, 5.0, Identity(5), still_fine)
    assert (caught.value.reason, caught.value.retry_after_s) == ("overloaded", 1.0)
    assert len(shards.stock.pools[SPEC].desk.queue) == 4


@mock_clock
async def test_users_who_fill_the_queue_keep_no_third_one_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "MAX_WAITING", 4)
    shards = FakeShards()
    first = [shards.stock.join_queue(SPEC, 5.0, Identity(uid), still_fine) for uid in (1, 2, 1, 2)]
    place = shards.stock.join_queue(SPEC, 5.0, Identity(3), still_fine)
    out = [waiter for waiter in first if waiter.refusal is not None]
    assert len(out) == 1
    with pytest.raises(ThrottlingException, match="have fewer requests") as caught:
        await shards.stock.wait(out[0])
    assert caught.value.reason == "overloaded"
    shards.fill(4)
    assert await shards.stock.wait(place)


@mock_clock
async def test_one_user_takes_no_more_than_half_of_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "MAX_WAITING", 4)
    shards = FakeShards()
    pool = shards.stock.pools[SPEC]
    places = [shards.stock.join_queue(SPEC, 5.0, Identity(1), still_fine) for _ in range(2)]
    with pytest.raises(ThrottlingException) as caught:
        shards.stock.join_queue(SPEC, 5.0, Identity(1), still_fine)
    assert (caught.value.reason, caught.value.retry_after_s) == ("overloaded", 1.0)
    assert "of this user" in caught.value.message
    shards.stock.join_queue(SPEC, 5.0, Identity(2), still_fine)  # there is room for others
    shards.fill(1)  # a place that leads to a pair is free again
    assert await shards.stock.wait(places[0])
    with trio.move_on_after(1.0):  # and so is one whose client leaves
        await shards.stock.wait(places[1])
    assert (pool.desk.queue.waiting(1), pool.desk.queue.waiting(2)) == (0, 1)
    for _ in range(2):
        shards.stock.join_queue(SPEC, 5.0, Identity(1), still_fine)


@mock_clock
async def test_a_place_in_a_long_queue_is_left_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many places as may be there are left by one connection that ends: in one turn of the loop."""
    compared = 0

    class Watched(Waiter):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return self is other

        __hash__ = object.__hash__

    monkeypatch.setattr(stock_module, "Waiter", Watched)
    shards = FakeShards()
    async with trio.open_nursery() as nursery:
        for _ in range(300):
            nursery.start_soon(shards.stock.wait, shards.stock.join_queue(SPEC, 5.0, WHO, still_fine))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not shards.stock.pools[SPEC].desk.queue
    assert compared < 300


@mock_clock
async def test_a_request_that_would_fail_by_now_is_told_so_and_costs_no_pair() -> None:
    shards = FakeShards()
    stock, pool = shards.stock, shards.stock.pools[SPEC]

    def disabled() -> None:
        raise DisabledException("of late")

    refused, served = stock.join_queue(SPEC, 5.0, WHO, disabled), stock.join_queue(SPEC, 5.0, WHO, still_fine)
    shards.fill(1)
    with pytest.raises(DisabledException, match="of late"):
        await stock.wait(refused)
    assert await stock.wait(served)
    assert (pool.book.in_hand, pool.book.discarded.total()) == (1, 0)
    assert book_is_balanced(stock)


# --- cancelled at the moment of hand-over


@pytest.mark.parametrize("first", ["hand-over", "cancellation"])
@pytest.mark.parametrize("how", ["cancelled", "timed out"])
def test_a_waiter_that_leaves_as_its_pair_comes_never_leaves_the_pair_to_another(
    first: str, how: str
) -> None:
    """Both happen before the waiter runs again, in either order: the pair is burnt, or still ready."""

    @mock_clock
    async def drive() -> None:
        shards = FakeShards()
        stock, pool = shards.stock, shards.stock.pools[SPEC]
        shards.hold(1)
        scope = trio.CancelScope()
        got: list[object] = []

        async def client() -> None:
            with scope:
                await outcome(shards, 1.0, got)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(client)
            await trio.testing.wait_all_tasks_blocked()
            steps: list[Callable[[], object]] = [shards.deliver, scope.cancel]
            if how == "timed out":
                await trio.sleep(DRAW_GRACE_S)  # wakes in the same turn as the waiter's own deadline
                steps.pop()
            for step in steps if first == "hand-over" else reversed(steps):
                step()
        book = pool.book
        if got and isinstance(got[0], Pair):
            stock.issue(SPEC)
        # Whoever got it, it is in one place only.
        assert len(pool.ready) + book.issued + book.discarded.total() == 1
        if how == "timed out":  # which of the two runs first, trio decides
            assert book.issued + len(pool.ready) == 1
        elif first == "cancellation":
            assert book.discarded == {"client_gone": 1}
        else:
            assert book.issued == 1
        assert not pool.desk.queue
        assert book_is_balanced(stock)

    drive()


# --- what shards hand over, and what they lose


@pytest.mark.parametrize(
    "damage",
    [
        lambda pair: dataclasses.replace(pair, private=pair.private + b"x"),
        lambda pair: dataclasses.replace(pair, public=fake_pair().public),
        lambda pair: dataclasses.replace(pair, generation=1),
        lambda _: fake_pair("RSA_4096"),  # sound, but of another spec
    ],
    ids=["private", "public", "generation", "spec"],
)
def test_a_damaged_pair_is_burnt_and_its_neighbours_are_not(damage: Callable[[Pair], Pair]) -> None:
    shards = FakeShards({SPEC: PoolPlan(12, 2)}, clock=lambda: 0.0)
    shards.hold(3)
    hit = iter([False, True, False])
    sent = shards.deliver(lambda pair: damage(pair) if next(hit) else pair)
    pool = shards.stock.pools[SPEC]
    assert list(pool.ready) == [sent[0], sent[2]]
    assert pool.book.discarded == {"damaged": 1}
    assert book_is_balanced(shards.stock)


@mock_clock
async def test_a_lost_shard_takes_its_own_part_with_it_and_no_more() -> None:
    shards = FakeShards({SPEC: PoolPlan(40, 2), RSA: PoolPlan(40, 2)})
    for shard in (0, 1):
        for spec in (SPEC, RSA):
            shards.hold(10, spec, shard)
    shards.draws.sort()
    shards.deliver()
    stock = shards.stock
    before = {spec: (pool.book.ready, pool.book.held) for spec, pool in stock.pools.items()}
    stock.lose_shard(0)
    for spec, pool in stock.pools.items():
        ready, held = before[spec]
        assert pool.book.ready == ready
        assert pool.held == {1: 10}
        assert 0 not in pool.drawing
        assert pool.book.discarded["worker_lost"] == pool.book.discarded.total() == held - 10
    assert book_is_balanced(stock)
    shards.hold(3, SPEC, 0)  # its successor starts anew
    assert stock.pools[SPEC].held == {0: 3, 1: 10}


@mock_clock
async def test_those_who_waited_for_a_lost_shard_are_served_by_another() -> None:
    shards = FakeShards()
    shards.hold(1, shard=0)
    results: list[object] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outcome, shards, 5.0, results)
        await trio.testing.wait_all_tasks_blocked()
        shards.stock.lose_shard(0)
        shards.draws.clear()
        shards.hold(1, shard=1)
        sent = shards.deliver()
    assert results == sent
    assert book_is_balanced(shards.stock)


@mock_clock
async def test_the_ready_sets_can_be_burnt_whole() -> None:
    shards = FakeShards({SPEC: PoolPlan(8, 2), RSA: PoolPlan(8, 2)})
    shards.fill(8, SPEC)
    shards.fill(8, RSA)
    shards.stock.burn_ready("shutdown")
    for pool in shards.stock.pools.values():
        assert not pool.ready
        assert pool.book.discarded["shutdown"] > 0
    assert book_is_balanced(shards.stock)


@mock_clock
async def test_a_pool_without_a_target_serves_those_who_wait_and_keeps_no_more() -> None:
    shards = FakeShards({SPEC: PoolPlan(0, 0)})
    assert shards.stock.pools[SPEC].ready_target == 0
    results: list[object] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outcome, shards, 5.0, results)
        await trio.testing.wait_all_tasks_blocked()
        assert shards.plans_asked
        shards.hold(1)
        sent = shards.deliver()
    assert results == sent


# --- users


ALICE, BOB = Identity(1), Identity(2)


@mock_clock
async def test_a_user_who_has_taken_its_share_waits_while_others_are_served_from_the_rest() -> None:
    shards = FakeShards({SPEC: PoolPlan(20, 2)}, kept_percent=20)
    stock, pool = shards.stock, shards.stock.pools[SPEC]
    shards.fill(20)
    assert stock.take_nowait(SPEC, BOB)
    taken = 0
    while stock.take_nowait(SPEC, ALICE):
        taken += 1
        while shards.draws:
            shards.deliver()
    assert taken == 15  # four are kept back, and Bob has one
    with pytest.raises(ThrottlingException, match="kept for others") as caught:
        stock.join_queue(SPEC, 0.0, ALICE, still_fine)
    assert caught.value.reason == "rate_limited"
    waiter = stock.join_queue(SPEC, 5.0, ALICE, still_fine)
    assert stock.take_nowait(SPEC, BOB)  # passes by who may not take
    shards.hold(2)
    while shards.draws:
        shards.deliver()
    assert waiter.pair is not None
    assert (pool.book.dry, pool.book.dry_while_held, pool.book.kept_back) == (0, 0, 2)
    assert book_is_balanced(stock)


@mock_clock
async def test_when_a_barred_user_stops_waiting_it_is_told_why() -> None:
    shards = FakeShards({SPEC: PoolPlan(20, 1)}, kept_percent=50)
    stock = shards.stock
    stock.pools[SPEC].ready_target = 20
    shards.fill(20)
    assert stock.take_nowait(SPEC, BOB)
    for _ in range(9):
        assert stock.take_nowait(SPEC, ALICE)
    with pytest.raises(ThrottlingException, match="kept for others"):
        await stock.wait(stock.join_queue(SPEC, 1.0, ALICE, still_fine))
    assert not stock.pools[SPEC].desk.queue


@mock_clock
async def test_a_barred_user_is_served_from_what_is_ready_as_soon_as_enough_is_held() -> None:
    shards = FakeShards({SPEC: PoolPlan(20, 2)}, kept_percent=20)
    stock, pool = shards.stock, shards.stock.pools[SPEC]
    pool.ready_target = 4
    shards.fill(20)
    assert stock.take_nowait(SPEC, BOB)
    while stock.take_nowait(SPEC, ALICE):
        while shards.draws:
            shards.deliver()
    waiter = stock.join_queue(SPEC, 5.0, ALICE, still_fine)
    assert (pool.at_hand, len(pool.ready)) == (4, 4)
    shards.hold(1)
    assert waiter.pair is not None
    assert shards.draws == []


@mock_clock
async def test_users_are_served_in_turn_and_so_are_the_cgroups_of_one() -> None:
    shards = FakeShards({SPEC: PoolPlan(0, 0)})
    places = {
        name: shards.stock.join_queue(SPEC, 5.0, Identity(*who), still_fine)
        for name, who in (("a1", (1, 7)), ("a2", (1, 7)), ("a3", (1, 8)), ("b1", (2, 7)), ("b2", (2, 7)))
    }
    order = []
    for _ in range(5):
        shards.hold(1)
        shards.deliver()
        order += [name for name, waiter in places.items() if waiter.pair is not None and name not in order]
    assert order == ["a1", "b1", "a3", "b2", "a2"]


@mock_clock
async def test_a_user_who_takes_too_fast_is_told_when_to_come_again_and_others_are_not_slowed() -> None:
    shards = FakeShards({SPEC: PoolPlan(64, 2)}, rules=[Rule(None, None, 0.5, 2)])
    shards.fill(64)
    stock = shards.stock
    assert stock.take_nowait(SPEC, ALICE)
    assert stock.take_nowait(SPEC, ALICE)
    with pytest.raises(ThrottlingException, match=r"\[\[limits\]\]") as caught:
        stock.take_nowait(SPEC, ALICE)
    assert (caught.value.reason, caught.value.retry_after_s) == ("rate_limited", 2.0)
    assert stock.take_nowait(SPEC, BOB)
    await trio.sleep(2.0)
    assert stock.take_nowait(SPEC, ALICE)


@mock_clock
async def test_a_request_that_got_no_pair_costs_no_token() -> None:
    shards = FakeShards(rules=[Rule(None, None, 0.001, 1)])
    stock = shards.stock
    assert stock.take_nowait(SPEC, ALICE) is None
    with pytest.raises(ThrottlingException, match="pair is ready"):
        stock.join_queue(SPEC, 0.0, ALICE, still_fine)
    assert stock.take_nowait(SPEC, ALICE) is None
    with pytest.raises(ThrottlingException, match="pair is ready"):
        await stock.wait(stock.join_queue(SPEC, 1.0, ALICE, still_fine))
    assert stock.take_nowait(SPEC, ALICE) is None
    waiter = stock.join_queue(SPEC, 5.0, ALICE, still_fine)
    with trio.move_on_after(1.0):
        await stock.wait(waiter)
    assert stock.take_nowait(SPEC, ALICE) is None
    waiter = stock.join_queue(SPEC, 5.0, ALICE, still_fine)
    shards.fill(1)
    assert await stock.wait(waiter)
    with pytest.raises(ThrottlingException, match="limits"):
        stock.take_nowait(SPEC, ALICE)


# --- who can't be served in time


@mock_clock
async def test_who_cannot_be_served_in_time_is_told_at_once_and_when_to_ask_again() -> None:
    shards = FakeShards()
    shards.forecast = Forecast(served_s=7.123, at_best_s=3.0)
    began = trio.current_time()
    with pytest.raises(ThrottlingException) as caught:
        shards.stock.join_queue(SPEC, 2.9, WHO, still_fine)
    assert trio.current_time() == began
    assert (caught.value.reason, caught.value.retry_after_s) == ("pool_dry", 7.12)
    results: list[object] = []
    await outcome(shards, 3.1, results)
    assert results == [("pool_dry", began + 3.1)]


@mock_clock
async def test_while_no_rate_is_known_everybody_may_wait() -> None:
    shards = FakeShards()
    results: list[object] = []
    await outcome(shards, 0.5, results)
    assert results == [("pool_dry", 0.5)]


@mock_clock
async def test_a_pair_that_a_shard_holds_is_waited_for_whatever_the_forecast() -> None:
    shards = FakeShards()
    shards.forecast = Forecast(served_s=70.0, at_best_s=30.0)
    shards.hold(1)
    waiter = shards.stock.join_queue(SPEC, 0.0, WHO, still_fine)
    shards.deliver()
    assert await shards.stock.wait(waiter)


# --- old pairs


@mock_clock
async def test_pairs_that_nobody_asked_for_in_time_are_burnt_wherever_they_are() -> None:
    shards = FakeShards({SPEC: PoolPlan(8, 2, max_age_s=60.0)})
    stock, pool = shards.stock, shards.stock.pools[SPEC]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(retire_old, stock)
        shards.fill(6)  # two of them are ready
        await trio.sleep(30)
        shards.hold(2)
        await trio.sleep(29)
        assert (pool.book.ready, pool.book.held, pool.book.discarded.total()) == (2, 6, 0)
        await trio.sleep(1.5)
        assert pool.book.discarded == {"too_old": 6}
        assert shards.burns == [(0, SPEC, 4)]
        assert (pool.book.ready, pool.held) == (0, {0: 2})
        assert book_is_balanced(stock)
        await trio.sleep(30)
        assert pool.book.discarded == {"too_old": 8}
        nursery.cancel_scope.cancel()
    assert book_is_balanced(stock)


@mock_clock
async def test_a_draw_under_way_is_spared_there_and_judged_when_it_comes() -> None:
    shards = FakeShards({SPEC: PoolPlan(8, 2, max_age_s=60.0)})
    stock, pool = shards.stock, shards.stock.pools[SPEC]
    shards.hold(6)
    assert shards.draws == [(0, SPEC, 2)]
    await trio.sleep(61)
    stock.retire(pool, trio.current_time())
    assert shards.burns == [(0, SPEC, 4)]
    assert pool.held == {0: 2}
    shards.deliver()
    assert not pool.ready
    assert pool.book.discarded == {"too_old": 6}
    assert book_is_balanced(stock)


@mock_clock
async def test_a_draw_that_does_not_come_keeps_nobody_busy() -> None:
    """What it has is past its age and spared: to look at it again and again would take a whole CPU."""
    shards = FakeShards({SPEC: PoolPlan(8, 2, max_age_s=60.0)})
    shards.hold(6)
    looks = 0
    retire = shards.stock.retire

    def counted(pool: Pool, now: float) -> None:
        nonlocal looks
        looks += 1
        retire(pool, now)

    shards.stock.retire = counted  # type: ignore[method-assign]
    with trio.move_on_after(63):
        await retire_old(shards.stock)
    assert looks < 50


@mock_clock
async def test_one_who_was_barred_is_served_when_others_have_taken_as_much() -> None:
    shards = FakeShards({SPEC: PoolPlan(20, 2)}, kept_percent=50)
    stock, pool = shards.stock, shards.stock.pools[SPEC]
    pool.ready_target = 20
    shards.fill(20)
    assert stock.take_nowait(SPEC, BOB)
    while stock.take_nowait(SPEC, ALICE):
        pass
    waiter = stock.join_queue(SPEC, 5.0, ALICE, still_fine)
    taken = 0
    while not waiter.woken.is_set():
        taken += stock.take_nowait(SPEC, BOB) is not None
    assert taken > 0
    assert waiter.pair is not None
    assert pool.ready


@mock_clock
async def test_what_limits_and_shares_keep_back_is_no_demand() -> None:
    shards = FakeShards(rules=[Rule(None, None, 0.001, 1)])
    stock, pool = shards.stock, shards.stock.pools[SPEC]
    shards.fill(8)
    assert stock.take_nowait(SPEC, ALICE)
    for _ in range(500):
        with pytest.raises(ThrottlingException, match="limits"):
            stock.take_nowait(SPEC, ALICE)
    pool.desk.note(trio.current_time())
    assert pool.desk.demand.rate(trio.current_time()) == pytest.approx(1 / 30)


@mock_clock
async def test_without_an_age_limit_nothing_is_retired_and_nobody_wakes() -> None:
    shards = FakeShards()
    shards.fill(8)
    with trio.move_on_after(10**5) as scope:
        await retire_old(shards.stock)
    assert scope.cancelled_caught
    assert shards.stock.pools[SPEC].book.discarded.total() == 0
