"""Every request gets a result or the right refusal, and no refused request costs a pair."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from kpcache import __version__
from kpcache.core.admin_operations import ADMIN_OPERATIONS
from kpcache.core.limits import Limits
from kpcache.core.operations import OPERATIONS
from kpcache.core.wire import Request
from kpcache.daemon.dispatcher import Dispatcher, Gate, PairOrder
from kpcache.errors import KpcacheError
from kpcache.keyring import changes
from kpcache.keyring.document import Document
from tests.fakes import SPEC, WHO, Bench, FakeShards, book_is_balanced, mock_clock
from tests.keyrings import ALIAS, document_of, keyring_of, record

PAIR_METHODS = ["GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext"]
GOOD = {"KeyId": "alias/on", "KeyPairSpec": SPEC}


def begin(bench: Bench, method: str, data: object = None, options: object = None) -> Any:
    return bench.dispatcher.begin(Request(1, method, {} if data is None else data, options))


def refusal(bench: Bench, method: str, data: object = None, options: object = None) -> KpcacheError:
    with pytest.raises(KpcacheError) as caught:
        begin(bench, method, data, options)
    return caught.value


def answered(bench: Bench, method: str, data: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request whose pair is ready."""
    order = begin(bench, method, data)
    assert isinstance(order, PairOrder)
    pair = bench.dispatcher.take(order, WHO)
    assert pair is not None
    return bench.dispatcher.build(order, pair)


# --- pairs


@mock_clock
async def test_the_answer_is_that_of_kms() -> None:
    bench = Bench()
    bench.shards.fill(4)
    pair = bench.stock.pools[SPEC].ready[0]
    context = {"app": "billing"}
    answer = answered(bench, "GenerateDataKeyPair", {**GOOD, "EncryptionContext": context})
    assert set(answer) == {
        *("PrivateKeyCiphertextBlob", "PrivateKeyPlaintext", "PublicKey"),
        *("KeyId", "KeyPairSpec", "KeyMaterialId"),
    }
    assert (answer["PrivateKeyPlaintext"], answer["PublicKey"]) == (pair.private, pair.public)
    assert (answer["KeyId"], answer["KeyPairSpec"]) == ("arn:alias/on", SPEC)
    request = {"CiphertextBlob": answer["PrivateKeyCiphertextBlob"], "EncryptionContext": context}
    assert begin(bench, "Decrypt", request)["Plaintext"] == pair.private
    bare = answered(bench, "GenerateDataKeyPairWithoutPlaintext", GOOD)
    assert set(bare) == set(answer) - {"PrivateKeyPlaintext"}
    assert bench.stock.pools[SPEC].book.in_hand == 2


BAD_OPTIONS: list[object] = [
    *([], 1, "wait_s", {"wait": 1}, {"wait_s": 1, "x": 1}, {"wait_s": -1}, {"wait_s": True}),
    *({"wait_s": value} for value in (None, "1", float("nan"), float("inf"))),
]
REFUSED: list[tuple[str, dict[str, Any], object, str]] = [
    ("no input", {}, None, "ValidationException"),
    ("unknown member", {**GOOD, "X": 1}, None, "ValidationException"),
    ("unknown spec", {**GOOD, "KeyPairSpec": "RSA_1024"}, None, "ValidationException"),
    ("no such key", {**GOOD, "KeyId": "nowhere"}, None, "NotFoundException"),
    ("disabled", {**GOOD, "KeyId": "alias/off"}, None, "DisabledException"),
    ("dying", {**GOOD, "KeyId": "alias/dying"}, None, "KMSInvalidStateException"),
    ("SM2", {**GOOD, "KeyPairSpec": "SM2"}, None, "UnsupportedOperationException"),
    ("ML_KEM_512", {**GOOD, "KeyPairSpec": "ML_KEM_512"}, None, "UnsupportedOperationException"),
    ("grant tokens", {**GOOD, "GrantTokens": ["t"]}, None, "InvalidGrantTokenException"),
    ("malformed ARN", {**GOOD, "KeyId": "arn:aws:s3:::x"}, None, "NotFoundException"),
    ("dry run", {**GOOD, "DryRun": True}, None, "DryRunOperationException"),
    ("dry run, no key", {**GOOD, "KeyId": "no", "DryRun": True}, None, "NotFoundException"),
    ("dry run, disabled", {**GOOD, "KeyId": "alias/off", "DryRun": True}, None, "DisabledException"),
    ("dry run, SM2", {**GOOD, "KeyPairSpec": "SM2", "DryRun": True}, None, "UnsupportedOperationException"),
    *((f"options {options!r}", GOOD, options, "ValidationException") for options in BAD_OPTIONS),
]


@pytest.mark.parametrize("method", PAIR_METHODS)
@pytest.mark.parametrize(
    ("data", "options", "code"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
@mock_clock
async def test_a_refusal_has_its_code_is_the_same_on_a_dry_pool_and_takes_no_pair(
    method: str, data: dict[str, Any], options: object, code: str
) -> None:
    dry, full = Bench(), Bench()
    full.shards.fill(8)
    errors = [refusal(bench, method, dict(data), options) for bench in (dry, full)]
    assert errors[0].to_wire() == errors[1].to_wire()
    assert errors[0].code == code
    book = full.stock.pools[SPEC].book
    assert (book.available, book.in_hand, book.issued, book.discarded.total()) == (8, 0, 0, 0)
    assert dry.stock.pools[SPEC].book.dry == 0


@mock_clock
async def test_a_wrap_that_fails_burns_the_pair() -> None:
    bench = Bench()
    bench.shards.fill(4)
    bench.keyring.failure = ArithmeticError()
    with pytest.raises(ArithmeticError):
        answered(bench, PAIR_METHODS[0], GOOD)
    book = bench.stock.pools[SPEC].book
    assert (book.in_hand, book.discarded) == (0, {"request_failed": 1})
    assert book_is_balanced(bench.stock)


# --- waiting


@pytest.mark.parametrize(
    ("limits", "options", "expected"),
    [
        (Limits(), None, 5.0),
        (Limits(), {}, 5.0),
        (Limits(wait_timeout_s=2.0), None, 2.0),
        (Limits(wait_when_dry=False), None, 0.0),
        (Limits(), {"wait_s": 0}, 0.0),
        (Limits(), {"wait_s": 1.5}, 1.5),
        (Limits(wait_when_dry=False), {"wait_s": 1.5}, 1.5),
        (Limits(), {"wait_s": 1e9}, 5.0),
        (Limits(), {"wait_s": 2**64 - 1}, 5.0),
    ],
    ids=repr,
)
@mock_clock
async def test_a_caller_waits_as_long_as_it_says_within_the_configured_most(
    limits: Limits, options: object, expected: float
) -> None:
    assert begin(Bench(limits=limits), PAIR_METHODS[0], GOOD, options).wait_s == expected


# --- a key that changes while a request waits


@mock_clock
async def test_the_material_told_is_the_one_that_wrapped_also_when_the_key_was_rotated_meanwhile() -> None:
    shards, keyring = FakeShards(), keyring_of(record())
    dispatcher = Dispatcher(shards.stock, keyring, Limits(), Gate(), dict)
    request = Request(1, "GenerateDataKeyPair", {"KeyId": ALIAS, "KeyPairSpec": SPEC}, None)
    order = dispatcher.begin(request)
    assert isinstance(order, PairOrder)
    waiter = dispatcher.join_queue(order, WHO)
    keyring.adopt(changes.rotate(keyring.content, ALIAS, 1.0, os.urandom))
    shards.fill(1)
    answer = dispatcher.build(order, await dispatcher.wait(waiter))
    assert answer["KeyMaterialId"] == keyring.content.keys[0].materials[1].material_id
    opened = keyring.decrypt(answer["PrivateKeyCiphertextBlob"], {})
    assert opened.material_id == answer["KeyMaterialId"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda content: changes.disable(content, ALIAS), "DisabledException"),
        (lambda content: changes.schedule_deletion(content, ALIAS, 7, 0.0), "KMSInvalidStateException"),
        (lambda _: document_of(record()), "NotFoundException"),
    ],
)
@mock_clock
async def test_a_key_that_goes_out_of_use_while_a_request_waits_costs_no_pair(
    change: Callable[[Document], Document], code: str
) -> None:
    shards, keyring = FakeShards(), keyring_of(record())
    dispatcher = Dispatcher(shards.stock, keyring, Limits(), Gate(), dict)
    request = Request(1, "GenerateDataKeyPair", {"KeyId": ALIAS, "KeyPairSpec": SPEC}, None)
    order = dispatcher.begin(request)
    assert isinstance(order, PairOrder)
    waiter = dispatcher.join_queue(order, WHO)
    keyring.adopt(change(keyring.content))
    shards.fill(1)
    with pytest.raises(KpcacheError) as caught:
        await dispatcher.wait(waiter)
    assert caught.value.code == code
    book = shards.stock.pools[SPEC].book
    assert (book.available, book.in_hand, book.discarded.total()) == (1, 0, 0)


# --- the alarm, and the end


@mock_clock
async def test_when_nothing_is_issued_any_more_every_pair_is_refused_and_burnt_if_in_hand() -> None:
    bench = Bench()
    bench.shards.fill(4)
    order = begin(bench, PAIR_METHODS[0], GOOD)
    pair = bench.dispatcher.take(order, WHO)
    assert pair is not None
    bench.gate.alarm = True  # the alarm, between taking and answering
    with pytest.raises(KpcacheError) as caught:
        bench.dispatcher.build(order, pair)
    again = refusal(bench, PAIR_METHODS[1], GOOD)
    for error in (caught.value, again, refusal(bench, PAIR_METHODS[0], {**GOOD, "DryRun": True})):
        assert (error.code, error.reason) == ("KMSInvalidStateException", "not_issuing")
    assert bench.stock.pools[SPEC].book.discarded == {"not_issuing": 1}
    assert begin(bench, "kpcache.Status") == {"status": "here"}  # it stays up to be inspected


@pytest.mark.parametrize("method", OPERATIONS)
@mock_clock
async def test_a_draining_daemon_tells_everyone_to_come_again(method: str) -> None:
    bench = Bench()
    bench.gate.draining = True
    error = refusal(bench, method, GOOD)
    assert (error.code, error.reason) == ("ThrottlingException", "draining")
    assert error.retry_after_s is not None


@mock_clock
async def test_a_draining_daemon_can_be_asked_whether_it_drains() -> None:
    bench = Bench()
    bench.gate.draining = True
    assert begin(bench, "kpcache.Status") == {"status": "here"}
    assert begin(bench, "kpcache.Ping")["Version"] == __version__


# --- other methods


@mock_clock
async def test_describe_key_ping_and_status_answer() -> None:
    bench = Bench(limits=Limits(max_message_bytes=20000, wait_timeout_s=2.0))
    assert begin(bench, "DescribeKey", {"KeyId": "alias/off"})["KeyMetadata"]["KeyState"] == "Disabled"
    no_options: list[object] = [None, {}]
    for options in no_options:
        assert begin(bench, "kpcache.Ping", {}, options) == {
            "ProtocolVersion": 1, "Version": __version__, "MaxMessageBytes": 20000, "MaxInFlight": 256,
            "MaxWaitSeconds": 2.0,
        }  # fmt: skip
    assert begin(bench, "kpcache.Status") == {"status": "here"}
    for method in ("kpcache.Ping", "kpcache.Status"):
        assert refusal(bench, method, {"x": 1}).code == "ValidationException"
        assert refusal(bench, method, {}, {"wait_s": 1}).code == "ValidationException"
        assert refusal(bench, method, [1]).code == "ValidationException"


@pytest.mark.parametrize("method", ADMIN_OPERATIONS)
@mock_clock
async def test_a_client_is_told_where_administration_is(method: str) -> None:
    bench = Bench()
    for _ in range(2):
        error = refusal(bench, method)
        assert error.code == "AccessDeniedException"
        assert method in error.message
        assert "admin.sock" in error.message
        bench.gate.draining = True


@pytest.mark.parametrize(
    "method", ["", "GenerateDataKey", "generatedatakeypair", "_generate", "kpcache.Purge", "\x1b[2J\n"]
)
@mock_clock
async def test_an_unknown_method_is_named_in_printable_words(method: str) -> None:
    error = refusal(Bench(), method)
    assert error.code == "UnsupportedOperationException"
    assert "GenerateDataKeyPair" in error.message
    assert error.message.isprintable()
