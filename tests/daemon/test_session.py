"""One client's connection: answers, deadlines, slow readers, faults inside; and no pair is left unsettled."""

import itertools
import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
import trio
import trio.testing

from kpcache.core import connection
from kpcache.core.connection import Connection
from kpcache.core.limits import Limits
from kpcache.daemon import session as session_module
from kpcache.daemon.session import Session
from kpcache.daemon.user import User
from tests.fakes import SPEC, WHO, Bench, Peer, book_is_balanced, mock_clock, pack_request, stream_pair

INPUT = {"KeyId": "alias/on", "KeyPairSpec": SPEC}
PAIR = "GenerateDataKeyPair"


@dataclass
class Open:
    """A session under test; ``ended`` is set when its ``run`` has returned."""

    bench: Bench
    session: Session
    peer: Peer
    ended: trio.Event

    @property
    def book(self) -> Any:
        return self.bench.stock.pools[SPEC].book


@asynccontextmanager
async def opened(*, clogged: bool = False, ready: int = 0, **limits: Any) -> AsyncIterator[Open]:
    """A running session with ``ready`` pairs. At its end no pair may be in anybody's hand."""
    bench = Bench(limits=Limits(**limits))
    if ready:
        bench.shards.fill(ready)
    with stream_pair(clogged=clogged) as (server, client):
        session = Session(server, User(0), WHO, bench.dispatcher, bench.stock, bench.limits)
        ended = trio.Event()

        async def run() -> None:
            await session.run()
            ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            peer = Peer(client)
            yield Open(bench, session, peer, ended)
            session.scope.cancel()
            await ended.wait()
            await peer.stream.aclose()
        assert server.fileno() == -1  # it closes the socket that it owns
    assert book_is_balanced(bench.stock)
    assert bench.stock.pools[SPEC].book.in_hand == 0


# --- answers


@mock_clock
async def test_a_ready_pair_is_answered_and_issued() -> None:
    async with opened(ready=8) as it:
        kind, msgid, error, result = await it.peer.call(7, PAIR, INPUT)
        assert (kind, msgid, error) == (1, 7, None)
        assert result["PrivateKeyPlaintext"] in it.bench.keyring.wrapped
        assert (it.book.issued, it.book.in_hand) == (1, 0)


@mock_clock
async def test_many_requests_in_flight_are_answered_as_they_are_ready() -> None:
    async with opened() as it:
        await it.peer.send(pack_request(1) + pack_request(2) + pack_request(3, "kpcache.Ping"))
        assert (await it.peer.answer())[1] == 3
        assert it.session.is_busy is True
        it.bench.shards.fill(2)
        answers = [await it.peer.answer() for _ in range(2)]
        assert sorted(answer[1] for answer in answers) == [1, 2]
        assert len({answer[3]["PrivateKeyPlaintext"] for answer in answers}) == 2
        assert it.book.issued == 2
        await it.peer.stream.aclose()
        await it.ended.wait()
        assert it.session.is_busy is False


@mock_clock
async def test_more_requests_than_one_turn_takes_are_all_answered() -> None:
    async with opened() as it:
        await it.peer.send(b"".join(pack_request(n, "kpcache.Ping") for n in range(100)))
        assert [(await it.peer.answer())[1] for _ in range(100)] == list(range(100))


@pytest.mark.parametrize(
    ("flood", "messages"),
    [(b"\x93\x02\xc0\xc0" * 1000, 1000), (b"".join(map(pack_request, range(255))), 255)],
    ids=["notifications", "requests that wait"],
)
@mock_clock
async def test_no_kind_of_message_gets_more_than_its_turn(flood: bytes, messages: int) -> None:
    """Between any two turns of the flooding client, all others get theirs."""
    async with opened() as it:
        seen: list[int] = []
        await it.peer.send(flood)
        while not seen or seen[-1] < messages:
            seen.append(it.session._connection.messages)
            await trio.lowlevel.checkpoint()
        # Between two of our turns it can have two, as trio shuffles the order in which tasks run.
        assert max(after - before for before, after in itertools.pairwise(seen)) <= 2 * 16


@mock_clock
async def test_notifications_are_counted_and_the_next_request_is_answered() -> None:
    async with opened() as it:
        await it.peer.send(b"\x93\x02\xc0\xc0" * 1000 + pack_request(1, "kpcache.Ping"))
        assert (await it.peer.answer())[1] == 1
        assert it.bench.dispatcher.notifications == 1000


@mock_clock
async def test_a_broken_message_is_answered_with_its_msgid_and_the_connection_ends() -> None:
    async with opened(ready=8) as it:
        await it.peer.send(b"\x94\x00\x07\xa1m\x91\xc1" + pack_request(8))
        answer = await it.peer.answer()
        assert (answer[1], answer[2]["Code"]) == (7, "ValidationException")
        assert await it.peer.is_cut()
        await it.ended.wait()
        assert it.book.issued == 0


@mock_clock
async def test_a_client_that_leaves_while_it_waits_leaves_no_place_in_the_queue() -> None:
    async with opened() as it:
        await it.peer.send(pack_request(1))
        await trio.testing.wait_all_tasks_blocked()
        assert len(it.bench.stock.pools[SPEC].desk.queue) == 1
        await it.peer.stream.aclose()
        await it.ended.wait()
        assert not it.bench.stock.pools[SPEC].desk.queue


# --- half-closed


@mock_clock
async def test_a_client_that_sends_no_more_is_answered_what_it_asked_for() -> None:
    async with opened() as it:
        await it.peer.send(pack_request(1) + pack_request(2) + pack_request(3)[:-1])
        await it.peer.stream.send_eof()
        await trio.sleep(1.0)
        assert len(it.bench.stock.pools[SPEC].desk.queue) == 2
        it.bench.shards.fill(1)
        assert (await it.peer.answer())[1] == 1
        it.bench.shards.fill(1)
        assert (await it.peer.answer())[1] == 2
        assert await it.peer.is_cut()
        await it.ended.wait()
        assert it.book.issued == 2


@mock_clock
async def test_a_client_that_sends_no_more_is_told_when_its_wait_was_in_vain() -> None:
    async with opened(wait_timeout_s=5.0) as it:
        await it.peer.send(pack_request(1))
        await it.peer.stream.send_eof()
        assert (await it.peer.answer())[2]["Reason"] == "pool_dry"
        assert await it.peer.is_cut()


@mock_clock
async def test_a_client_that_sends_no_more_and_reads_late_gets_its_answer_whole() -> None:
    async with opened(clogged=True, message_timeout_s=5.0) as it:
        await it.peer.send(pack_request(1))
        await it.peer.stream.send_eof()
        await trio.sleep(1)
        it.bench.shards.fill(1)
        await trio.sleep(1)
        assert it.book.in_hand == 1
        assert (await it.peer.answer())[1] == 1
        assert await it.peer.is_cut()
        assert it.book.issued == 1


@mock_clock
async def test_one_that_half_closed_and_then_left_has_no_place_in_the_queue() -> None:
    async with opened() as it:
        await it.peer.send(pack_request(1))
        await it.peer.stream.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        assert len(it.bench.stock.pools[SPEC].desk.queue) == 1
        start = trio.current_time()
        await it.peer.stream.aclose()
        await it.ended.wait()
        assert trio.current_time() == start
        assert not it.bench.stock.pools[SPEC].desk.queue


@mock_clock
async def test_one_that_is_gone_altogether_costs_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[object] = []

    async def watch(sock: object) -> None:
        watched.append(sock)

    monkeypatch.setattr(session_module, "wait_gone", watch)
    async with opened() as it:
        await it.peer.send(pack_request(1))
        await it.peer.stream.aclose()
        await it.ended.wait()
    assert not watched


@mock_clock
async def test_few_half_closed_connections_of_a_user_are_kept_and_none_without_a_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: int) -> None:
        raise OSError(24, "Too many open files")

    async with opened() as it:
        it.session.user.half_closed = 32
        await it.peer.send(pack_request(1))
        await it.peer.stream.send_eof()
        assert await it.peer.is_cut()
    monkeypatch.setattr(select, "epoll", fail)
    async with opened() as it:
        await it.peer.send(pack_request(1))
        await it.peer.stream.send_eof()
        assert await it.peer.is_cut()
        await it.ended.wait()
        assert it.session.user.half_closed == 0


# --- deadlines


@mock_clock
async def test_a_message_has_one_deadline_for_all_its_bytes() -> None:
    """Dripped so that each read comes in time: the message as a whole does not."""
    async with opened(message_timeout_s=5.0) as it:
        start = trio.current_time()
        for byte in pack_request(1, "kpcache.Ping"):
            if not it.ended.is_set():
                await it.peer.send(bytes([byte]))
                await trio.sleep(0.6)
        assert 5.0 <= trio.current_time() - start <= 5.7
        assert await it.peer.is_cut()


@mock_clock
async def test_each_message_has_a_deadline_of_its_own() -> None:
    async with opened(message_timeout_s=5.0) as it:
        message = pack_request(1, "kpcache.Ping")
        for _ in range(4):
            await it.peer.send(message[:5])
            await trio.sleep(4.0)
            await it.peer.send(message[5:] + message[:3])  # the next begins with the same bytes
            assert (await it.peer.answer())[1] == 1
            await trio.sleep(4.0)
            await it.peer.send(message[3:])
            assert (await it.peer.answer())[1] == 1


@mock_clock
async def test_an_idle_connection_has_no_deadline_nor_has_one_that_waits_for_us() -> None:
    async with opened(message_timeout_s=1.0, wait_timeout_s=3600.0) as it:
        await trio.sleep(3600)
        assert (await it.peer.call(1, "kpcache.Ping"))[1] == 1
        await it.peer.send(pack_request(2))
        await trio.sleep(1000)
        it.bench.shards.fill(1)
        assert (await it.peer.answer())[1] == 2


@mock_clock
async def test_a_deadline_missed_by_one_message_burns_what_others_of_it_wait_for() -> None:
    async with opened(message_timeout_s=1.0) as it:
        await it.peer.send(pack_request(1) + pack_request(2)[:4])
        assert await it.peer.is_cut()
        await it.ended.wait()
        assert not it.bench.stock.pools[SPEC].desk.queue


# --- a client that does not read


@mock_clock
async def test_a_slow_reader_is_cut_after_the_message_timeout_and_its_pairs_are_burnt() -> None:
    async with opened(clogged=True, ready=8, message_timeout_s=5.0) as it:
        start = trio.current_time()
        await it.peer.send(b"".join(map(pack_request, range(3))))
        await it.ended.wait()
        assert trio.current_time() - start == pytest.approx(5.0)
        assert (it.book.issued, it.book.discarded) == (0, {"client_gone": 3})


@mock_clock
async def test_a_reader_that_is_late_but_not_too_late_gets_all_its_answers() -> None:
    async with opened(clogged=True, ready=8, message_timeout_s=5.0) as it:
        await it.peer.send(b"".join(map(pack_request, range(3))))
        await trio.sleep(4.9)
        assert it.book.in_hand == 3
        assert [(await it.peer.answer())[1] for _ in range(3)] == [0, 1, 2]
        await trio.testing.wait_all_tasks_blocked()
        assert it.book.issued == 3


@mock_clock
async def test_no_request_is_read_while_answers_are_not() -> None:
    async with opened(clogged=True, message_timeout_s=5.0) as it:
        await it.peer.send(b"".join(pack_request(n, "kpcache.Ping") for n in range(400)))
        await trio.testing.wait_all_tasks_blocked()
        assert it.session._connection.messages <= 16
        got = [(await it.peer.answer())[1] for _ in range(400)]  # then it reads, and nothing is lost
        assert got == list(range(400))


@mock_clock
async def test_a_torn_answer_is_never_followed_by_another() -> None:
    """A client that read a part and found more after it could take one answer's bytes for another's."""
    async with opened(clogged=True, ready=8, message_timeout_s=5.0) as it:
        data = {**INPUT, "EncryptionContext": {"k": "v" * 3500}}  # all four are read at once
        await it.peer.send(b"".join(pack_request(n, PAIR, data) for n in range(4)))
        await trio.sleep(1)
        assert (await it.peer.answer())[1] == 0
        await it.ended.wait()
        got = [0]
        with suppress(EOFError):
            while True:
                got.append((await it.peer.answer())[1])
        assert got == list(range(len(got)))
        assert len(got) < 4
        assert it.book.discarded["client_gone"] == 4  # all four went into one write, which failed


@mock_clock
async def test_a_client_gone_before_its_answer_burns_the_pair() -> None:
    async with opened(ready=8) as it:
        await it.peer.send(pack_request(1))
        await it.peer.stream.aclose()
        await it.ended.wait()
        assert (it.book.issued, it.book.discarded) == (0, {"client_gone": 1})


# --- the in-flight limit


@mock_clock
async def test_at_the_in_flight_limit_reading_stops_until_an_answer_is_out() -> None:
    async with opened(max_in_flight_per_connection=2) as it:
        await it.peer.send(b"".join(map(pack_request, range(5))))
        await trio.testing.wait_all_tasks_blocked()
        assert len(it.bench.stock.pools[SPEC].desk.queue) == 2
        got = set()
        for _ in range(5):
            it.bench.shards.fill(1)
            got.add((await it.peer.answer())[1])
            await trio.testing.wait_all_tasks_blocked()
            assert len(it.bench.stock.pools[SPEC].desk.queue) <= 2
        assert got == set(range(5))
        assert it.book.issued == 5


@mock_clock
async def test_answers_given_while_the_client_read_nothing_end_the_pause_as_well() -> None:
    """At the limit, with an answer that the client does not read; then those in flight are answered."""
    async with opened(clogged=True, max_in_flight_per_connection=2, message_timeout_s=60.0) as it:
        await it.peer.send(pack_request(1) + pack_request(2, "kpcache.Ping") + pack_request(3))
        await trio.testing.wait_all_tasks_blocked()
        assert it.session._connection.in_flight == 2
        it.bench.shards.fill(2)
        await trio.testing.wait_all_tasks_blocked()
        assert {(await it.peer.answer())[1] for _ in range(3)} == {1, 2, 3}
        with trio.fail_after(30):
            assert (await it.peer.call(4, "kpcache.Ping"))[1] == 4


# --- our own faults


@pytest.mark.parametrize("ready", [0, 8])
@mock_clock
async def test_a_wrap_that_fails_burns_the_pair_and_tells_no_more_than_it_must(
    ready: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(ready=ready) as it:
        it.bench.keyring.failure = RuntimeError("a message with a SECRET")
        await it.peer.send(pack_request(1))
        await trio.testing.wait_all_tasks_blocked()
        it.bench.shards.fill(1 - bool(ready))
        answer = await it.peer.answer()
        assert answer[2]["Code"] == "KMSInternalException"
        assert "SECRET" not in str(answer) + caplog.text
        assert "RuntimeError" in caplog.text
        assert (it.book.issued, it.book.discarded) == (0, {"request_failed": 1})
        it.bench.keyring.failure = None
        it.bench.shards.fill(1)
        assert (await it.peer.call(2, PAIR, INPUT))[2] is None  # and the connection lives on


@pytest.mark.parametrize("ready", [0, 8])
@mock_clock
async def test_an_answer_that_cannot_be_packed_burns_its_pair(
    ready: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise ValueError("a SECRET")

    monkeypatch.setattr(connection, "encode_result", fail)
    async with opened(ready=ready) as it:
        await it.peer.send(pack_request(1))
        await trio.testing.wait_all_tasks_blocked()
        it.bench.shards.fill(1 - bool(ready))
        assert (await it.peer.answer())[2]["Code"] == "KMSInternalException"
        assert (it.book.issued, it.book.discarded) == (0, {"request_failed": 1})


@mock_clock
async def test_a_defect_in_the_protocol_ends_this_connection_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Connection) -> None:
        raise RuntimeError("a SECRET")

    async with opened(ready=8) as it:
        monkeypatch.setattr(Connection, "next_event", fail)
        await it.peer.send(b"x")
        assert await it.peer.is_cut()
        await it.ended.wait()  # run returned; nothing was raised out of it
    assert "defect in a connection: RuntimeError" in caplog.text
    assert "SECRET" not in caplog.text


# --- cut from outside


@mock_clock
async def test_a_cut_burns_what_was_not_sent_and_closes_the_socket() -> None:
    async with opened(clogged=True, ready=8) as it:
        await it.peer.send(b"".join(map(pack_request, range(3))))
        await trio.testing.wait_all_tasks_blocked()
        assert it.session.is_busy
        it.session.scope.cancel()
        await it.ended.wait()
        assert (it.book.issued, it.book.discarded) == (0, {"client_gone": 3})


@mock_clock
async def test_a_defect_anywhere_on_a_pairs_last_steps_burns_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair that stayed in hand for ever would keep a snapshot from being taken until the next restart."""

    def broken(*_: Any) -> None:
        raise RuntimeError

    async with opened(ready=8) as it:
        monkeypatch.setattr(it.bench.shards.stock, "_needs_plan", broken)
        assert (await it.peer.call(1, PAIR, INPUT))[2]["Code"] == "KMSInternalException"
        assert (it.book.in_hand, it.book.discarded["request_failed"]) == (0, 1)
    async with opened(ready=8) as it:
        monkeypatch.setattr(it.session._outbox, "_require_same_machine", broken)
        await it.peer.send(pack_request(1))
        assert await it.peer.is_cut()
        assert (it.book.in_hand, it.book.issued, it.book.discarded.total()) == (0, 0, 1)
    async with opened(ready=8) as it:
        honest, calls = Connection.next_event, itertools.count(1)
        monkeypatch.setattr(
            Connection, "next_event", lambda each: honest(each) if next(calls) < 3 else broken()
        )
        await it.peer.send(pack_request(1) + pack_request(2))
        assert await it.peer.is_cut()
        assert (it.book.in_hand, it.book.discarded["request_failed"]) == (0, 1)
