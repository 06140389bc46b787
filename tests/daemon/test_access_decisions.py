"""Each request is held against the rules before anything of a key is revealed; what the refused are told."""

import logging
from typing import Any

import pytest

from kpcache.core.access import PAIR_OPERATIONS, Rule
from kpcache.core.fair_queue import Identity
from kpcache.core.limits import Limits
from kpcache.core.operations import OPERATIONS
from kpcache.core.wire import Request
from kpcache.daemon.access import Visitor
from kpcache.daemon.access_log import AccessLog
from kpcache.daemon.dispatcher import Dispatcher, Gate, PairOrder
from kpcache.daemon.peer import UNKNOWN, Peer
from kpcache.errors import KpcacheError
from kpcache.keyring import Keyring
from kpcache.keyring.document import Document
from tests.fakes import SPEC, FakeShards, mock_clock
from tests.keyrings import record

KEYS = {"alias/mine": record(), "alias/other": record(), "alias/off": record(state="Disabled")}
ALIASES = {alias: key.key_id for alias, key in KEYS.items()}
UID = 1000
PLAINTEXT = b"a private key"


def peer(uid: int = UID, *, pid: int = 7, gids: tuple[int, ...] = (), has_ended: bool = False) -> Peer:
    return Peer(pid, Identity(uid), 100, frozenset({100, *gids}), has_ended)


def document(aliases: dict[str, str]) -> Document:
    return Document(tuple(KEYS.values()), aliases, 1, 0)


class Place:
    """A dispatcher over a real keyring, with these rules."""

    def __init__(self, *rules: Rule, gate: Gate | None = None, ready: int = 2) -> None:
        self.keyring = Keyring(document(ALIASES))
        self.shards = FakeShards(clock=lambda: 0.0)
        self.shards.fill(ready)
        self.dispatcher = Dispatcher(
            self.shards.stock, self.keyring, Limits(), gate or Gate(), lambda: {"status": "here"}
        )
        self.dispatcher.access.replace(rules)
        self.visitor = Visitor(peer())

    def blob(self, alias: str) -> bytes:
        return self.keyring.encrypt(self.keyring.resolve(alias), PLAINTEXT, {}).blob

    def ask(self, method: str, data: dict[str, Any] | None = None, visitor: Visitor | None = None) -> str:
        """The code of the refusal; empty for an answer, or for a pair to come."""
        try:
            self.answer(method, data, visitor)
        except KpcacheError as error:
            return error.code
        return ""

    def answer(self, method: str, data: dict[str, Any] | None = None, visitor: Visitor | None = None) -> Any:
        return self.dispatcher.begin(Request(1, method, dict(data or {}), None), visitor or self.visitor)

    def refusal(self, method: str, data: dict[str, Any], visitor: Visitor | None = None) -> str:
        with pytest.raises(KpcacheError) as caught:
            self.answer(method, data, visitor)
        assert caught.value.code == "AccessDeniedException"
        return caught.value.message

    def inputs(self, alias: str, target: str = "alias/mine") -> dict[str, dict[str, Any]]:
        """Of each operation, one with this key (and, of ReEncrypt, that target)."""
        pair = {"KeyId": alias, "KeyPairSpec": SPEC}
        return {
            "GenerateDataKeyPair": pair,
            "GenerateDataKeyPairWithoutPlaintext": pair,
            "Encrypt": {"KeyId": alias, "Plaintext": b"x"},
            "Decrypt": {"CiphertextBlob": self.blob(alias)},
            "ReEncrypt": {"CiphertextBlob": self.blob(alias), "DestinationKeyId": target},
            "DescribeKey": {"KeyId": alias},
        }


def mine(*operations: str, **more: Any) -> Rule:
    """For ``UID`` and ``alias/mine``."""
    given: dict[str, Any] = {"uids": frozenset({UID}), "key_ids": frozenset({"alias/mine"}), **more}
    return Rule(operations=frozenset(operations or OPERATIONS), **given)


# --- allowed and refused


@pytest.mark.parametrize("method", OPERATIONS)
@mock_clock
async def test_a_rule_allows_its_operation_with_its_key_to_its_user_and_nothing_else(method: str) -> None:
    place = Place(mine(method))
    assert place.ask(method, place.inputs("alias/mine")[method]) == ""
    for form in (place.keyring.resolve("alias/mine").arn, ALIASES["alias/mine"]):
        if "KeyId" in place.inputs("alias/mine")[method]:
            assert place.ask(method, {**place.inputs("alias/mine")[method], "KeyId": form}) == ""
    denied = "AccessDeniedException"
    assert place.ask(method, place.inputs("alias/other")[method]) == denied
    for other in (peer(0), peer(UID + 1, gids=(0, UID)), peer(65534), peer(pid=0), UNKNOWN):
        assert place.ask(method, place.inputs("alias/mine")[method], Visitor(other)) == denied
    for another in OPERATIONS.keys() - {method}:
        assert place.ask(another, place.inputs("alias/mine")[another]) == denied


@pytest.mark.parametrize("method", sorted(PAIR_OPERATIONS))
@mock_clock
async def test_a_rule_gives_out_pairs_of_its_specs_alone(method: str) -> None:
    place = Place(mine(specs=frozenset({"RSA_2048"})))
    refused = place.refusal(method, place.inputs("alias/mine")[method])
    assert f"{method} {SPEC} with key 'alias/mine'" in refused
    assert place.ask(method, {"KeyId": "alias/mine", "KeyPairSpec": "RSA_2048"}) == ""
    assert place.ask("Decrypt", place.inputs("alias/mine")["Decrypt"]) == ""  # gives out none


@mock_clock
async def test_a_group_is_enough_primary_or_supplementary() -> None:
    place = Place(Rule(gids=frozenset({100}), operations=frozenset({"Encrypt"})), Rule(gids=frozenset({42})))
    primary, supplementary = Visitor(peer()), Visitor(peer(gids=(7, 42)))
    inputs = place.inputs("alias/mine")
    assert [place.ask("Encrypt", inputs["Encrypt"], each) for each in (primary, supplementary)] == ["", ""]
    assert place.ask("Decrypt", inputs["Decrypt"], primary) == "AccessDeniedException"
    assert place.ask("Decrypt", inputs["Decrypt"], supplementary) == ""


@pytest.mark.parametrize("method", OPERATIONS)
@mock_clock
async def test_without_rules_and_on_the_admin_socket_nobody_is_refused(method: str) -> None:
    for place, visitor in (
        (Place(), Visitor(UNKNOWN)),
        (Place(), Visitor(peer(has_ended=True))),
        (Place(mine("Encrypt")), Visitor(peer(0, has_ended=True), is_administrator=True)),
    ):
        assert place.ask(method, place.inputs("alias/other")[method], visitor) == ""


@pytest.mark.parametrize("method", OPERATIONS)
@mock_clock
async def test_a_dry_run_is_refused_as_the_real_thing(method: str) -> None:
    if "DryRun" not in OPERATIONS[method].checks:
        return
    place = Place(mine())
    for alias, code in (("alias/mine", "DryRunOperationException"), ("alias/other", "AccessDeniedException")):
        assert place.ask(method, {**place.inputs(alias)[method], "DryRun": True}) == code
    ignoring = {"DryRun": True, "DryRunModifiers": ["IGNORE_CIPHERTEXT"]}
    if method in ("Decrypt", "ReEncrypt"):
        member = "KeyId" if method == "Decrypt" else "SourceKeyId"
        data = {
            key: value for key, value in place.inputs("alias/mine")[method].items() if key != "CiphertextBlob"
        }
        assert place.ask(method, {**data, **ignoring, member: "alias/mine"}) == "DryRunOperationException"
        assert place.ask(method, {**data, **ignoring, member: "alias/other"}) == "AccessDeniedException"


@mock_clock
async def test_to_re_encrypt_takes_the_right_on_both_keys() -> None:
    place = Place(mine("ReEncrypt"))
    for source, target, code in (
        ("alias/mine", "alias/mine", ""),
        ("alias/mine", "alias/other", "AccessDeniedException"),
        ("alias/other", "alias/mine", "AccessDeniedException"),
    ):
        assert place.ask("ReEncrypt", place.inputs(source, target)["ReEncrypt"]) == code


@pytest.mark.parametrize("has_ended", [False, True])
@mock_clock
async def test_whoever_may_nothing_can_ask_who_he_is_and_how_the_daemon_is(has_ended: bool) -> None:
    place = Place(mine(), gate=Gate(draining=True))
    visitor = Visitor(peer(0, has_ended=has_ended))
    for method in ("kpcache.Ping", "kpcache.Status", "kpcache.WhoAmI"):
        assert place.ask(method, {}, visitor) == ""
        assert place.ask(method, {"x": 1}, visitor) == "ValidationException"


# --- what a refusal tells


@pytest.mark.parametrize("method", sorted(OPERATIONS.keys() - {"Decrypt", "ReEncrypt"}))
@mock_clock
async def test_whether_a_key_exists_is_told_to_those_alone_who_may_use_it(method: str) -> None:
    place = Place(mine(key_ids=frozenset({"alias/mine", "alias/gone"})))
    told = []
    for name in (
        "alias/other",
        "alias/off",
        "alias/nowhere",
        record().key_id,
        "arn:aws:kms:local:0:x",
        "\x1b[2J",
    ):
        data = {**place.inputs("alias/mine")[method], "KeyId": name}
        if method == "DescribeKey" and name.startswith("arn:"):
            continue  # malformed, which the request alone shows
        message = place.refusal(method, data)
        assert "ask the administrator for an [[access]] rule; kpcache whoami" in message
        assert message.isprintable()
        told.append(message.replace(name.replace("\x1b", "\\x1b"), "NAME"))
    assert len(set(told)) == 1
    # That name he may use, so he is told that it leads nowhere.
    assert (
        place.ask(method, {**place.inputs("alias/mine")[method], "KeyId": "alias/gone"})
        == "NotFoundException"
    )
    everybody = Place(Rule())
    assert everybody.ask(method, {**place.inputs("alias/mine")[method], "KeyId": "no"}) == "NotFoundException"


@mock_clock
async def test_a_long_name_is_cut() -> None:
    assert len(Place(mine()).refusal("Encrypt", {"KeyId": "\x00" * 2048, "Plaintext": b"x"})) < 900


def damage(blob: bytes) -> bytes:
    return blob[:-1] + bytes([blob[-1] ^ 1])


@mock_clock
async def test_of_a_blob_whose_key_he_may_not_use_nothing_is_told() -> None:
    """Neither whether it is sound, nor whether its key is there, in use, or the one that was named."""
    place = Place(mine())
    stranger = Keyring(Document((key := record(),), {"alias/x": key.key_id}, 1, 0))
    foreign = stranger.encrypt(stranger.resolve("alias/x"), PLAINTEXT, {}).blob
    off = bytearray(place.blob("alias/other"))
    off[5:21] = bytes.fromhex(ALIASES["alias/off"].replace("-", ""))
    blobs = [
        place.blob("alias/other"),
        damage(place.blob("alias/other")),
        bytes(off),
        foreign,
        bytes(200),
    ]
    messages = {place.refusal("Decrypt", {"CiphertextBlob": blob}) for blob in blobs}
    messages |= {place.refusal("Decrypt", {"CiphertextBlob": blob, "KeyId": "alias/mine"}) for blob in blobs}
    assert len(messages) == 1
    assert "The ciphertext refers to a customer master key that does not exist" in messages.pop()
    # His own blob, damaged, is one that does not open; and whoever may use every key is told so of any.
    damaged = damage(place.blob("alias/mine"))
    assert place.ask("Decrypt", {"CiphertextBlob": damaged}) == "InvalidCiphertextException"
    assert Place(Rule()).ask("Decrypt", {"CiphertextBlob": foreign}) == "InvalidCiphertextException"


@mock_clock
async def test_a_header_that_names_another_key_opens_nothing() -> None:
    place = Place(mine())
    forged = bytearray(place.blob("alias/other"))
    forged[5:21] = bytes.fromhex(ALIASES["alias/mine"].replace("-", ""))
    assert place.ask("Decrypt", {"CiphertextBlob": bytes(forged)}) == "InvalidCiphertextException"


@mock_clock
async def test_a_process_that_had_ended_is_told_so_and_allowed_nothing() -> None:
    place = Place(Rule(), mine())
    ended = Visitor(peer(has_ended=True))
    for method in OPERATIONS:
        assert "the process that made this connection had ended" in place.refusal(
            method, place.inputs("alias/mine")[method], ended
        )
    answer = place.answer("kpcache.WhoAmI", {}, ended)
    assert answer["Allowed"] == []
    assert "connect again" in answer["Note"]


# --- who am I


@mock_clock
async def test_who_am_i_tells_identity_and_rights() -> None:
    place = Place(mine("Encrypt"), Rule(gids=frozenset({42}), operations=frozenset({"DescribeKey"})))
    assert place.answer("kpcache.WhoAmI", {}, Visitor(peer(gids=(42,)))) == {
        "Uid": UID, "Gid": 100, "Groups": [42, 100], "Pid": 7, "Administrator": False, "RulesInForce": True,
        "Allowed": [
            {"Operation": "Encrypt", "KeyIds": ["alias/mine"]}, {"Operation": "DescribeKey", "KeyIds": "*"},
        ],
        "Note": "",
    }  # fmt: skip
    unknown = place.answer("kpcache.WhoAmI", {}, Visitor(peer(65534)))
    assert (unknown["Allowed"], "another namespace" in unknown["Note"]) == ([], True)
    for free in (
        Place().answer("kpcache.WhoAmI", {}, Visitor(peer(65534))),
        place.answer("kpcache.WhoAmI", {}, Visitor(peer(0), is_administrator=True)),
    ):
        assert [row["Operation"] for row in free["Allowed"]] == list(OPERATIONS)
        assert free["Note"] == ""


# --- changes while connections are open


@mock_clock
async def test_a_right_follows_the_alias_on_an_open_connection() -> None:
    place = Place(mine("Encrypt"))
    by_id = {"KeyId": ALIASES["alias/other"], "Plaintext": b"x"}
    assert place.ask("Encrypt", by_id) == "AccessDeniedException"
    place.keyring.adopt(document({**ALIASES, "alias/mine": ALIASES["alias/other"]}))
    assert place.ask("Encrypt", by_id) == ""
    assert place.ask("Encrypt", {**by_id, "KeyId": ALIASES["alias/mine"]}) == "AccessDeniedException"


@mock_clock
async def test_other_rules_are_in_force_at_once_on_an_open_connection() -> None:
    place = Place(mine("Encrypt"))
    data = {"KeyId": "alias/mine", "Plaintext": b"x"}
    assert place.ask("Encrypt", data) == ""
    place.dispatcher.access.replace((mine("Decrypt"),))
    assert place.ask("Encrypt", data) == "AccessDeniedException"
    place.dispatcher.access.replace(())
    assert place.ask("Encrypt", data) == ""


@mock_clock
async def test_a_right_that_is_taken_while_a_request_waits_costs_no_pair() -> None:
    place = Place(mine(), ready=0)
    order = place.answer("GenerateDataKeyPair", place.inputs("alias/mine")["GenerateDataKeyPair"])
    assert isinstance(order, PairOrder)
    waiter = place.dispatcher.join_queue(order, place.visitor.peer.who)
    place.dispatcher.access.replace((mine("Encrypt", "GenerateDataKeyPairWithoutPlaintext"),))
    place.shards.fill(1)
    with pytest.raises(KpcacheError) as caught:
        await place.dispatcher.wait(waiter)
    assert caught.value.code == "AccessDeniedException"
    book = place.shards.stock.pools[SPEC].book
    assert (book.available, book.in_hand, book.discarded.total()) == (1, 0, 0)


@mock_clock
async def test_a_rule_for_what_is_no_key_is_told_when_it_comes_into_force(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Place(mine(key_ids=frozenset({"alias/mine", "alias/gone"})))
    assert caplog.messages == [
        "[[access]] names what is no key at present: alias/gone; there these rules allow nothing"
    ]


# --- the log


def test_a_flood_of_refusals_is_a_line_a_minute_for_each_user(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    refusals = AccessLog(lambda: now)
    for second in range(121):
        now = float(second)
        for _ in range(1000):
            refusals.refused(peer(), "Encrypt with key 'x'")
    refusals.refused(peer(5), "Decrypt of a blob")
    first = "no [[access]] rule for uid 1000, pid 7: Encrypt with key 'x'"
    assert caplog.messages == [
        first, *[f"{first} (59999 refusals more since last logged)"] * 2,
        "no [[access]] rule for uid 5, pid 7: Decrypt of a blob",
    ]  # fmt: skip


def test_who_can_be_many_users_fills_neither_log_nor_memory(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    refusals = AccessLog(lambda: now)
    for uid in range(10_000):
        refusals.refused(peer(uid), "x")
    assert len(caplog.messages) == 257  # those with a line of their own, and one for all others
    now = 61.0
    for uid in range(20_000, 20_010):
        refusals.refused(peer(uid), "x")
    assert len(caplog.messages) == 267  # whose minute is over makes room


@mock_clock
async def test_what_a_client_writes_is_escaped_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    Place(mine()).refusal("Encrypt", {"KeyId": "a\nkpcache: forged " + "x" * 2000, "Plaintext": b"SECRET"})
    (line,) = caplog.messages
    assert line.isprintable()
    assert len(line) < 300
    assert "SECRET" not in line
