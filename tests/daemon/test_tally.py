"""What a request is counted as: by its outcome, and under labels that no client can add to."""

import itertools
import string
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from kpcache.core.limits import Limits
from kpcache.core.specs import MAKEABLE
from kpcache.core.wire import Request
from kpcache.daemon import session as session_module
from kpcache.daemon.session import Session
from kpcache.daemon.tally import OTHER, OUTCOMES, REASONS, Labels, Tally
from kpcache.daemon.user import User
from kpcache.errors import (
    WIRE_CLASSES,
    ConfigError,
    KMSInternalException,
    KpcacheError,
    ThrottlingException,
    ValidationException,
)
from tests.fakes import SPEC, WHO, Bench, Peer, mock_clock, pack_request, stream_pair

PAIR = "GenerateDataKeyPair"
INPUT = {"KeyId": "alias/on", "KeyPairSpec": SPEC}


@asynccontextmanager
async def asked(
    monkeypatch: pytest.MonkeyPatch, ready: int = 0, **limits: Any
) -> AsyncIterator[tuple[Bench, Peer]]:
    """A client of a session whose requests are timed by the mock clock."""
    monkeypatch.setattr(session_module, "perf_counter", trio.current_time)
    bench = Bench(limits=Limits(**limits))
    if ready:
        bench.shards.fill(ready)
    with stream_pair() as (server, client):
        session = Session(server, User(0), WHO, bench.dispatcher, bench.stock, bench.limits)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run)
            peer = Peer(client)
            yield bench, peer
            session.scope.cancel()
            await peer.stream.aclose()


def counts(bench: Bench) -> dict[Labels, int]:
    return {labels: times.count for labels, times in bench.dispatcher.tally.times.items()}


@mock_clock
async def test_each_request_is_counted_once_by_its_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asked(monkeypatch, ready=8) as (bench, peer):
        await peer.call(1, PAIR, INPUT)
        await peer.call(2, f"{PAIR}WithoutPlaintext", INPUT)
        await peer.call(3, "Encrypt", {"KeyId": "alias/on", "Plaintext": b"x"})
        await peer.call(4, "kpcache.Ping")
        await peer.call(5, PAIR, {**INPUT, "KeyId": "alias/off"})
        await peer.call(6, PAIR, {**INPUT, "KeyPairSpec": "SM2"})
        await peer.call(7, "kpcache.PurgeKey", {})
        await peer.call(8, "NoSuchMethod", {})
        bench.keyring.failure = RuntimeError("injected")
        await peer.call(9, PAIR, INPUT)
        bench.gate.draining = True
        await peer.call(10, PAIR, INPUT)
        assert counts(bench) == {
            (PAIR, SPEC, "keyring", "hit"): 1,
            (f"{PAIR}WithoutPlaintext", SPEC, "keyring", "hit"): 1,
            ("Encrypt", "none", "keyring", "hit"): 1,
            ("kpcache.Ping", "none", "none", "hit"): 1,
            (PAIR, SPEC, "none", "refused"): 2,
            (PAIR, OTHER, "none", "refused"): 1,
            ("kpcache.PurgeKey", "none", "none", "refused"): 1,
            (OTHER, "none", "none", "refused"): 1,
            (PAIR, SPEC, "keyring", "error"): 1,
        }
        assert bench.dispatcher.tally.refusals == {
            (PAIR, "DisabledException", "none"): 1,
            (PAIR, "UnsupportedOperationException", "none"): 1,
            ("kpcache.PurgeKey", "AccessDeniedException", "none"): 1,
            (OTHER, "UnsupportedOperationException", "none"): 1,
            (PAIR, "ThrottlingException", "draining"): 1,
        }
        assert bench.dispatcher.tally.wraps["keyring"].count == 2


@mock_clock
async def test_a_wait_is_timed_from_the_request_to_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asked(monkeypatch) as (bench, peer):
        await trio.sleep(100)
        await peer.send(pack_request(1))
        await trio.sleep(0.2)
        bench.shards.fill(1)
        await peer.answer()
        await peer.call(2, PAIR, INPUT, {"wait_s": 3})
        await peer.call(3, PAIR, INPUT, {"wait_s": 0})
        waited, dry = (PAIR, SPEC, "keyring", "waited"), (PAIR, SPEC, "keyring", "dry")
        assert counts(bench) == {waited: 1, dry: 2}
        times = bench.dispatcher.tally.times
        assert times[waited].sum == pytest.approx(0.2)
        assert times[dry].sum == pytest.approx(3.0)
        assert bench.dispatcher.tally.refusals == {(PAIR, "ThrottlingException", "pool_dry"): 2}


@mock_clock
async def test_requests_that_came_together_are_each_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them waits: the others are not kept from their answers, nor is that in their times."""
    async with asked(monkeypatch, ready=4) as (bench, peer):
        await peer.send(b"".join(pack_request(number) for number in range(5)))
        for _ in range(4):
            await peer.answer()
        await trio.sleep(2)
        bench.shards.fill(1)
        await peer.answer()
        hit, waited = (PAIR, SPEC, "keyring", "hit"), (PAIR, SPEC, "keyring", "waited")
        assert counts(bench) == {hit: 4, waited: 1}
        assert bench.dispatcher.tally.times[hit].sum == 0
        assert bench.dispatcher.tally.times[waited].sum == pytest.approx(2.0)


@mock_clock
async def test_one_who_leaves_while_waiting_has_had_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asked(monkeypatch) as (bench, peer):
        await peer.send(pack_request(1))
        await trio.sleep(0.2)
        await peer.stream.aclose()
        await trio.sleep(0.2)
        assert not bench.stock.pools[SPEC].desk.queue
        assert counts(bench) == {}


@mock_clock
async def test_bytes_that_are_not_the_protocol_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asked(monkeypatch) as (bench, peer):
        await peer.send(b"GET / HTTP/1.1\r\n\r\n")
        assert await peer.is_cut()
        assert bench.dispatcher.tally.broken == 1
        assert counts(bench) == {}


@mock_clock
async def test_no_client_can_add_a_child_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["".join(letters) for letters in itertools.product(string.ascii_letters, repeat=2)][:500]
    async with asked(monkeypatch) as (bench, peer):
        for number, name in enumerate(names):
            await peer.call(number, name, {"KeyPairSpec": name})
            await peer.call(number, PAIR, {"KeyId": name, "KeyPairSpec": name})
        assert counts(bench) == {
            (OTHER, "none", "none", "refused"): len(names),
            (PAIR, OTHER, "none", "refused"): len(names),
        }
        assert len(bench.dispatcher.tally.refusals) == 2


METHODS = ["kpcache.Ping", PAIR, f"{PAIR}WithoutPlaintext", "Decrypt"]
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=3,
)
SPECS = st.sampled_from([*MAKEABLE, "SM2", "ML_KEM_512"]) | ANY
REQUESTS = st.builds(
    Request,
    st.integers(0, 2**32 - 1),
    st.sampled_from(METHODS) | st.text(),
    st.builds(lambda spec, more: {**more, "KeyPairSpec": spec}, SPECS, st.dictionaries(st.text(), ANY)) | ANY,
    st.none(),
)
ERRORS = st.builds(
    lambda cls, reason: cls("no", reason=reason),
    st.sampled_from([*WIRE_CLASSES.values(), KpcacheError, ConfigError]),
    st.none() | st.text() | st.sampled_from(sorted(REASONS)),
)


@settings(deadline=None)
@given(st.lists(st.tuples(REQUESTS, ERRORS, st.sampled_from(["none", "keyring"])), max_size=30))
def test_labels_are_of_closed_sets_whatever_is_asked_and_refused(
    story: list[tuple[Request, KpcacheError, str]],
) -> None:
    tally = Tally(METHODS)
    for request, error, provider in story:
        tally.note(tally.refused(request, error, provider), 0.001)
    for operation, spec, provider, outcome in tally.times:
        assert operation in {*METHODS, OTHER}
        assert spec in {*MAKEABLE, OTHER, "none"}
        assert provider in {"none", "keyring"}
        assert outcome in OUTCOMES
        assert spec == "none" or operation.startswith(PAIR)
    for operation, code, reason in tally.refusals:
        assert operation in {*METHODS, OTHER}
        assert code in {*WIRE_CLASSES, OTHER}
        assert reason in REASONS
    # A refusal is counted in both; a defect is none.
    assert sum(times.count for times in tally.times.values()) == len(story)
    defects = sum(times.count for labels, times in tally.times.items() if labels[3] == "error")
    assert tally.refusals.total() == len(story) - defects


def test_a_defect_is_no_refusal_and_a_dry_pool_has_an_outcome_of_its_own() -> None:
    tally = Tally(METHODS)
    request = Request(1, PAIR, INPUT, None)
    assert tally.refused(request, KMSInternalException("no"), "keyring")[3] == "error"
    assert not tally.refusals
    assert tally.refused(request, ThrottlingException("no", reason="pool_dry"), "keyring")[3] == "dry"
    assert tally.refused(request, ThrottlingException("no", reason="overloaded"), "keyring")[3] == "refused"
    assert tally.refused(request, ValidationException("no"), "none")[3] == "refused"
    assert tally.refusals.total() == 3
