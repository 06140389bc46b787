"""Before a snapshot no pair is left, nor anything that makes one; afterwards all goes on."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from kpcache.daemon.endings import WorkersRemainError, wait_ended, watched
from kpcache.daemon.ledger_store import LedgerUnavailableError
from kpcache.daemon.quiesce import UNREAD_TIMEOUT_S, Quiescence
from kpcache.errors import KMSInvalidStateException
from tests.daemon.test_session import PAIR, Open, opened
from tests.fakes import SPEC, mock_clock, pack_request, real_clock


class Workers:
    """Plays supervisor, floor and keyring."""

    def __init__(self, it: Open) -> None:
        self._it = it
        self.story: list[str] = []
        self.remain = False
        self.keeps_unread = False
        self.ledger_fails = False
        keyring = SimpleNamespace(new_epoch=lambda: self.story.append("new epoch"))
        bench = it.bench
        self.quiescence = Quiescence(
            bench.gate,
            bench.stock,
            cast(Any, self),
            cast(Any, self),
            cast(Any, keyring),
            bench.stock.fence,
            self._cut_unread,
            lambda: self.story.append("reserve dropped"),
            self._raise_floor,
        )

    async def _raise_floor(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.ledger_fails:
            raise LedgerUnavailableError("ledger.db: disk I/O error")
        self.story.append("floor raised")

    def _cut_unread(self) -> None:
        self.story.append("cut")
        if self._it.session.owes_pairs and not self.keeps_unread:
            self._it.session.scope.cancel()

    def stop(self, why: str) -> None:
        self.story.append(f"floor stopped: {why}")

    def resume(self, why: str) -> None:
        self.story.append(f"floor resumed: {why}")

    async def end_workers(self, reason: str) -> None:
        self.story.append("workers ended")
        self._it.bench.stock.lose_shard(0, reason)
        await trio.sleep(0.5)
        if self.remain:
            raise WorkersRemainError

    def start_workers(self) -> None:
        self.story.append("workers started")


@mock_clock
async def test_all_pairs_are_burnt_and_none_is_given_until_it_is_resumed() -> None:
    async with opened(ready=40) as it:
        workers = Workers(it)
        waiting = await it.peer.call(1, PAIR, {"KeyId": "alias/on", "KeyPairSpec": SPEC})
        assert waiting[2] is None
        answer, told = await workers.quiescence.quiesce()
        assert (answer, told) == ({"Burnt": 39}, ["39 pairs burnt"])
        assert workers.story == [
            "floor stopped: quiesced",
            "workers ended",
            "reserve dropped",
            "floor raised",
        ]
        assert (it.book.ready, it.book.held, it.book.in_hand) == (0, 0, 0)
        error = (await it.peer.call(2, PAIR, {"KeyId": "alias/on", "KeyPairSpec": SPEC}))[2]
        assert (error["Code"], error["Reason"], error["RetryAfterSeconds"]) == (
            "ThrottlingException",
            "quiesced",
            5.0,
        )
        assert (await it.peer.call(3, "kpcache.Status"))[2] is None
        assert (await workers.quiescence.quiesce())[0] == {"Burnt": 0}
        it.bench.shards.source.generation = 9  # this one is the copy
        assert (await workers.quiescence.resume())[0] == {"Generation": 9, "CloneGuard": "stand-in"}
        assert workers.story[-3:] == ["new epoch", "workers started", "floor resumed: quiesced"]
        it.bench.shards.fill(8)
        assert (await it.peer.call(4, PAIR, {"KeyId": "alias/on", "KeyPairSpec": SPEC}))[2] is None
        with pytest.raises(KMSInvalidStateException, match="not quiesced"):
            await workers.quiescence.resume()


@mock_clock
async def test_who_waits_is_refused_at_once() -> None:
    async with opened() as it:
        await it.peer.send(pack_request(1))
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        await Workers(it).quiescence.quiesce()
        assert (await it.peer.answer())[2]["Reason"] == "quiesced"
        assert trio.current_time() - before < 1


@mock_clock
async def test_an_answer_under_way_may_be_read_for_a_while_and_is_burnt_then() -> None:
    async with opened(clogged=True, ready=8, message_timeout_s=3600.0) as it:
        workers = Workers(it)
        await it.peer.send(pack_request(1))
        await trio.testing.wait_all_tasks_blocked()
        assert (it.book.taken, it.session.owes_pairs) == (1, True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.quiescence.quiesce)
            await trio.sleep(UNREAD_TIMEOUT_S * 0.9)
            assert (await it.peer.answer())[2] is None  # it was taken before: it is this client's
        assert (it.book.issued, "cut" in workers.story) == (1, False)
    async with opened(clogged=True, ready=8, message_timeout_s=3600.0) as it:
        workers = Workers(it)
        await it.peer.send(pack_request(1) + pack_request(2))
        await trio.testing.wait_all_tasks_blocked()
        await workers.quiescence.quiesce()
        assert (it.book.issued, it.book.in_hand, workers.story[-1]) == (0, 0, "cut")
        assert await it.peer.is_cut()


@mock_clock
async def test_an_answer_that_remains_is_told() -> None:
    async with opened(clogged=True, ready=8, message_timeout_s=3600.0) as it:
        workers = Workers(it)
        workers.keeps_unread = True
        await it.peer.send(pack_request(1))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(KMSInvalidStateException, match=r"no snapshot yet.*under way"):
            await workers.quiescence.quiesce()
        assert it.bench.gate.quiesced


@mock_clock
async def test_a_ledger_that_cannot_note_it_is_told() -> None:
    async with opened() as it:
        workers = Workers(it)
        workers.ledger_fails = True
        with pytest.raises(KMSInvalidStateException, match=r"no snapshot yet.*sealed pairs"):
            await workers.quiescence.quiesce()
        workers.ledger_fails = False
        await workers.quiescence.quiesce()
        assert workers.story[-1] == "floor raised"


@mock_clock
async def test_a_process_that_remains_is_told() -> None:
    async with opened() as it:
        workers = Workers(it)
        workers.remain = True
        with pytest.raises(KMSInvalidStateException, match=r"no snapshot yet.*maker"):
            await workers.quiescence.quiesce()
        assert not it.bench.gate.issuing


@real_clock
async def test_processes_are_waited_for_to_their_end() -> None:
    process = await trio.lowlevel.open_process(["sleep", "600"])
    with watched([process.pid]) as pidfds:
        with pytest.raises(WorkersRemainError):
            await wait_ended(pidfds, 0.05)
        process.kill()
        await wait_ended(pidfds, 20)
        await process.wait()
    with watched([process.pid]) as gone:
        assert gone == []


@real_clock
async def test_a_process_that_cannot_be_watched_is_taken_to_remain() -> None:
    with pytest.MonkeyPatch.context() as patch:

        def none_left(_pid: int) -> int:
            raise OSError(24, "Too many open files")

        patch.setattr("os.pidfd_open", none_left)
        with watched([1]) as pidfds, pytest.raises(WorkersRemainError):
            await wait_ended(pidfds, 1)
