"""No pair made before this machine was copied is given out after it, wherever it was at that moment."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from kpcache.daemon.fence import LOOK_INTERVAL_S, Fence
from kpcache.worker.generation import VmClock
from tests.daemon.test_session import PAIR, opened
from tests.fakes import (
    SPEC,
    WHO,
    Bench,
    FakeShards,
    FakeSource,
    book_is_balanced,
    fake_pair,
    mock_clock,
    pack_request,
    real_clock,
)
from tests.vmclock import StandIn


@mock_clock
async def test_the_ready_set_is_burnt_before_a_pair_is_taken_in_a_copy() -> None:
    shards = FakeShards()
    shards.fill(8)
    assert shards.stock.take_nowait(SPEC, WHO) is not None
    shards.source.generation = 5
    assert shards.stock.take_nowait(SPEC, WHO) is None
    book = shards.stock.pools[SPEC].book
    assert (book.ready, book.held, book.taken, book.discarded["copied"]) == (0, 0, 1, 7)
    assert shards.stock.fence.number == 5
    shards.fill(8)
    assert shards.stock.take_nowait(SPEC, WHO) is not None
    assert book_is_balanced(shards.stock)


@mock_clock
async def test_a_batch_from_before_is_burnt_when_it_arrives() -> None:
    shards = FakeShards()
    shards.hold(8)
    shard, spec, count = shards.draws.pop()
    old = [fake_pair(spec, 0) for _ in range(count)]
    stock = shards.stock
    stock.fence.number = 1  # the change was met, and this shard's end not yet
    stock.receive(shard, spec, old)
    book = stock.pools[SPEC].book
    assert (book.ready, book.discarded["copied"]) == (0, count)


@mock_clock
async def test_who_waits_gets_no_pair_from_before() -> None:
    shards = FakeShards()
    waiter = shards.stock.join_queue(SPEC, 5.0, WHO, lambda: None)
    shards.hold(8)
    shard, spec, count = shards.draws.pop()
    shards.source.generation = 1  # nobody has looked since
    shards.stock.receive(shard, spec, [fake_pair(spec, 0) for _ in range(count)])
    assert [waiter.pair] == [None]
    assert shards.stock.pools[SPEC].book.discarded["copied"] == 8
    shards.fill(8)
    assert [pair.generation for pair in [waiter.pair] if pair] == [1]
    shards.stock.burn(SPEC, "client_gone")
    assert book_is_balanced(shards.stock)


def copies_within(bench: Bench, noticed: bool, at: int = 1) -> None:
    """The machine is copied while answer ``at`` is built; ``noticed``: and another part has seen it before
    the answer goes out."""
    honest, calls = bench.keyring.encrypt, []

    def encrypt(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            bench.shards.source.generation += 1
            if noticed:
                assert not bench.stock.fence.stands()
        return honest(*args)

    vars(bench.keyring)["encrypt"] = encrypt


@pytest.mark.parametrize("noticed", [False, True])
@pytest.mark.parametrize("at", [1, 2])
@mock_clock
async def test_no_byte_of_an_answer_goes_out_if_it_was_built_across_a_copy(noticed: bool, at: int) -> None:
    async with opened(ready=8) as it:
        copies_within(it.bench, noticed, at)
        await it.peer.send(pack_request(1) + pack_request(2))
        received = b""
        with suppress(trio.BrokenResourceError):
            async for data in it.peer.stream:
                received += data
        assert received == b""
        await it.ended.wait()
        assert it.book.issued == 0
        assert it.book.discarded["copied"] == 8


@pytest.mark.parametrize("noticed", [False, True])
@mock_clock
async def test_nor_if_it_was_built_for_one_who_waited(noticed: bool) -> None:
    async with opened() as it:
        await it.peer.send(pack_request(1))
        await trio.testing.wait_all_tasks_blocked()
        copies_within(it.bench, noticed)
        it.bench.shards.fill(8)
        assert await it.peer.is_cut()
        assert it.book.issued == 0


@pytest.mark.parametrize("noticed", [False, True])
@mock_clock
async def test_nor_the_rest_of_one_that_its_client_is_slow_to_read(noticed: bool) -> None:
    async with opened(clogged=True, ready=8) as it:
        await it.peer.send(pack_request(1, PAIR, {"KeyId": "alias/on", "KeyPairSpec": SPEC}))
        await trio.testing.wait_all_tasks_blocked()
        assert it.book.taken == 1
        it.bench.shards.source.generation += 1
        if noticed:
            it.bench.stock.fence.stands()
        assert await it.peer.is_cut()
        assert (it.book.issued, it.book.discarded["copied"]) == (0, 8)


@mock_clock
async def test_an_answer_without_a_pair_goes_out_in_any_copy() -> None:
    async with opened(ready=8) as it:
        it.bench.shards.source.generation += 1
        assert (await it.peer.call(1, "kpcache.Status"))[3] == {"status": "here"}


def fail() -> int:
    raise OSError(5, "Input/output error")


@mock_clock
async def test_a_source_that_fails_is_taken_for_a_copy_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with opened(ready=8) as it:
        fence = it.bench.stock.fence
        fence._read = fail
        await it.peer.send(pack_request(1))
        await trio.testing.wait_all_tasks_blocked()
        assert (it.book.ready, it.book.held, it.book.discarded["copied"]) == (0, 0, 8)
        assert (fence.source.mode, fence.source.read()) == ("none", fence.number)
        assert fence.number != 0
        assert fence.lacks == ["/a/file: Input/output error"]
        assert caplog.text.count("not noticed any more") == 1
        it.bench.shards.source.generation = fence.number  # of what is made from now on
        it.bench.shards.fill(8)
        assert (await it.peer.answer())[2] is None
        await fence.watch()  # there is nothing to be watched any more


@mock_clock
async def test_nothing_is_given_out_if_burning_fails() -> None:
    """A defect, whatever it is: pairs of another generation stay where they are, or are burnt."""
    async with opened(ready=8) as it:

        def broken() -> None:
            raise RuntimeError

        it.bench.stock.fence.on_change(broken)
        it.bench.shards.source.generation = 9
        first = (await it.peer.call(1, PAIR, {"KeyId": "alias/on", "KeyPairSpec": SPEC}))[2]
        assert first["Code"] == "KMSInternalException"
        await it.peer.send(pack_request(2))
        await trio.testing.wait_all_tasks_blocked()
        assert (it.book.issued, it.book.ready, it.book.discarded["copied"]) == (0, 0, 8)


@mock_clock
async def test_nothing_is_wrapped_under_old_keys_in_a_copy() -> None:
    async with opened() as it:
        crossed: list[int] = []
        it.bench.stock.fence.on_change(lambda: crossed.append(len(it.bench.keyring.wrapped)))
        it.bench.shards.source.generation = 9
        assert (await it.peer.call(1, "Encrypt", {"KeyId": "alias/on", "Plaintext": b"x"}))[2] is None
        assert crossed == [0]
        blob = it.bench.keyring.encrypt(it.bench.keyring.resolve("alias/on"), b"x", {}).blob
        it.bench.shards.source.generation = 10
        again = {"CiphertextBlob": blob, "DestinationKeyId": "alias/on"}
        assert (await it.peer.call(2, "ReEncrypt", again))[2] is None
        assert crossed == [0, 2]


@real_clock
async def test_a_log_is_looked_at_when_something_comes() -> None:
    out, into = os.pipe()
    source = FakeSource()
    vars(source)["fd"] = out
    fence, crossed = Fence(source), trio.Event()
    fence.on_change(crossed.set)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fence.watch)
        source.generation = 1
        os.write(into, b"a line")
        await crossed.wait()
        nursery.cancel_scope.cancel()
    os.close(out)
    os.close(into)


@mock_clock
async def test_a_change_is_noticed_while_nobody_asks() -> None:
    source, crossed = FakeSource(), list[float]()
    fence = Fence(source)
    fence.on_change(lambda: crossed.append(trio.current_time()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fence.watch)
        await trio.sleep(10.5 * LOOK_INTERVAL_S)
        assert crossed == []
        source.generation = 2**64 - 1
        await trio.sleep(LOOK_INTERVAL_S)
        assert len(crossed) == 1
        nursery.cancel_scope.cancel()
    assert (fence.number, fence.stands()) == (2**64 - 1, True)


def test_it_reads_the_clock_itself(tmp_path: Path) -> None:
    """What stands in the page counts, not what was read of it before."""
    clock = StandIn(tmp_path / "clock", 3)
    fence = Fence(VmClock(str(clock.path)))
    calls: list[int] = []
    fence.on_change(lambda: calls.append(fence.number))
    assert fence.stands()
    clock.generation = 4
    assert [fence.stands(), fence.stands(), calls] == [False, True, [4]]
