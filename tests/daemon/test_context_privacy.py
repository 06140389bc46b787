"""An encryption context reaches the cipher and nothing else: no message to a client, no line of the log.

So no keyed hash of one is needed anywhere: nothing tells of contexts at all.
"""

import logging
from typing import Any

import msgpack
import pytest
import trio

from kpcache.core.limits import MAX_ITEMS, Limits
from kpcache.core.operations import OPERATIONS
from kpcache.daemon.session import Session
from kpcache.daemon.user import User
from tests.fakes import SPEC, WHO, Bench, Peer, mock_clock, pack_request, stream_pair

MARK = "TELLTALE"
CONTEXT = {f"{MARK}-key": f"{MARK}-value"}
FORBIDDEN: list[Any] = [
    f"{MARK}-value",
    {f"{MARK}-key": 7},
    {f"{MARK}-key": {f"{MARK}-value": ""}},
    {f"{MARK}-key": MARK * 1025},
    {f"{MARK}{number}": "" for number in range(65)},
    {f"{MARK}{number}": "" for number in range(MAX_ITEMS + 1)},
]
MEMBERS: dict[str, Any] = {
    "KeyId": "alias/on",
    "KeyPairSpec": SPEC,
    "Plaintext": b"plaintext",
    "CiphertextBlob": b"no blob",
    "DestinationKeyId": "alias/on",
}
FAULTS: list[dict[str, Any]] = [
    {},
    *({"KeyId": key, "DestinationKeyId": key} for key in ("alias/off", "alias/dying", "nowhere", "")),
    {"GrantTokens": ["token"]},
    {"Recipient": {}},
    {"DryRun": True},
    {"DryRun": 1},
    {"Unknown": 1},
]
WITH_CONTEXT = {
    method: [name for name in operation.checks if name.endswith("EncryptionContext")]
    for method, operation in OPERATIONS.items()
    if method != "DescribeKey"
}


async def replies(bench: Bench, *requests: bytes) -> list[list[Any]]:
    """What a session answers, each request on a connection of its own."""
    answers = []
    for request in requests:
        with stream_pair() as (server, client):
            session = Session(server, User(0), WHO, bench.dispatcher, bench.stock, Limits())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.run)
                peer = Peer(client)
                await peer.send(request)
                answers.append(await peer.answer())
                await peer.stream.aclose()
    return answers


@mock_clock
async def refused(*requests: bytes) -> None:
    bench = Bench()
    bench.shards.fill(8)
    for _, _, error, result in await replies(bench, *requests):
        if error is not None:
            assert MARK not in str(error)
        else:  # the fake keyring's blobs are in clear
            assert MARK not in str({name: result[name] for name in result if not name.endswith("Blob")})


@pytest.mark.parametrize("method", WITH_CONTEXT)
def test_no_refusal_tells_any_of_a_context(method: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    allowed = OPERATIONS[method].checks
    base = {name: value for name, value in MEMBERS.items() if name in allowed}
    inputs = [
        {**base, **fault, **dict.fromkeys(WITH_CONTEXT[method], context)}
        for fault in FAULTS
        for context in (CONTEXT, *FORBIDDEN)
    ]
    refused(*(pack_request(1, method, data) for data in inputs))
    assert MARK not in caplog.text


def test_two_readings_of_one_context_are_refused_without_telling_them() -> None:
    pairs = msgpack.packb(f"{MARK}-key") + msgpack.packb(f"{MARK}-value")
    context = b"\x82" + pairs + pairs
    data = b"\x81" + msgpack.packb("EncryptionContext") + context
    refused(b"\x94\x00\x01" + msgpack.packb("Encrypt") + b"\x91" + data)


@pytest.mark.parametrize("method", WITH_CONTEXT)
def test_a_defect_logged_while_a_context_is_at_hand_does_not_show_it(
    method: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)

    def broken(*arguments: object) -> None:
        raise LookupError(f"tripped over {arguments}")

    @mock_clock
    async def drive() -> None:
        bench = Bench()
        bench.shards.fill(8)
        for name in ("encrypt", "decrypt"):
            monkeypatch.setattr(bench.keyring, name, broken)
        allowed = OPERATIONS[method].checks
        data = {name: value for name, value in MEMBERS.items() if name in allowed}
        data |= dict.fromkeys(WITH_CONTEXT[method], CONTEXT)
        [[_, _, error, _]] = await replies(bench, pack_request(1, method, data))
        assert error["Code"] == "KMSInternalException"
        assert MARK not in str(error)

    drive()
    assert "LookupError" in caplog.text
    assert MARK not in caplog.text
