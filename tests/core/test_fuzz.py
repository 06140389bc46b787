"""The fuzzer finds nothing in the product, and each of many planted defects; its parts do what they say."""

import json
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgpack
import pytest

from bench.fuzz import __main__ as command
from bench.fuzz import campaign, covered, inside, results
from bench.fuzz.campaign import Campaign, Memory
from bench.fuzz.cases import Maker
from bench.fuzz.daemon import Fuzzed, Witness
from bench.fuzz.inside import Target
from bench.fuzz.tally import Finding, Tally
from bench.fuzz.words import Words
from bench.report import Result
from kpcache.core import contract, wire
from kpcache.core.connection import Broken, Connection
from kpcache.core.limits import Limits
from kpcache.core.wire import Scanner
from kpcache.daemon.dispatcher import Dispatcher
from kpcache.daemon.stock import Stock

SEED = 20261125
CASES = 600


@pytest.fixture(scope="module")
def target() -> Target:
    return Target()


def fuzzed(target: Target, cases: int = CASES) -> Tally:
    tally = Tally()
    inside.run(target, Maker(SEED, target.words), range(cases), tally)
    return tally


def test_nothing_is_found_and_the_dispatcher_gets_its_share(target: Target) -> None:
    tally = fuzzed(target, 3000)
    assert tally.findings == []
    assert tally.messages > 10_000
    assert tally.reached / tally.messages >= results.LEAST_REACHED
    assert tally.broken > 500
    assert tally.notifications > 100
    # Requests of every fate that a client can meet without a wait.
    assert {
        "result", "ValidationException", "NotFoundException", "DisabledException", "KMSInvalidStateException",
        "UnsupportedOperationException", "InvalidGrantTokenException", "InvalidCiphertextException",
        "IncorrectKeyException", "InvalidKeyUsageException", "DryRunOperationException",
        "InvalidArnException", "ThrottlingException", "AccessDeniedException",
    } <= set(tally.answered)  # fmt: skip


# --- planted defects


def _forgetful_break(link: Connection, _error: Exception) -> Broken:
    """Tells the client, and goes on behind the broken message."""
    link._buffer.clear()
    link._scanner = Scanner(2**16)
    return Broken(b"")


def _careless_request(msgid: Any, method: Any, params: Any) -> wire.Request:
    return wire.Request(msgid, method, params[0], params[1] if len(params) > 1 else None)


def _largest_plus_one(scanner: Scanner, max_bytes: int, real: Callable[..., None] = Scanner.__init__) -> None:
    real(scanner, max_bytes + 1)


class _Blind(set[int]):
    def __contains__(self, _item: object) -> bool:
        return False


def _blind_connection(
    link: Connection, limits: Limits, real: Callable[..., None] = Connection.__init__
) -> None:
    real(link, limits)
    link._in_flight = _Blind()


def _fails(*_: object) -> dict[str, Any]:
    raise RuntimeError


PLANTED: dict[str, tuple[Any, str, Any, str]] = {
    "a key twice is let through": (wire, "_map_without_doubt", dict, "wrong"),
    "a level too deep is let through": (wire, "MAX_DEPTH", 6, "wrong"),
    "the deepest legal level is refused": (wire, "MAX_DEPTH", 4, "wrong"),
    "an entry too many is let through": (wire, "MAX_ITEMS", 257, "wrong"),
    "a byte too many is let through": (Scanner, "__init__", _largest_plus_one, "wrong"),
    "a method too long is let through": (wire, "MAX_METHOD_CHARS", 65, "wrong"),
    "any msgid is taken": (wire, "is_msgid", lambda _value: True, "wrong"),
    "params are not looked at": (wire, "_request", _careless_request, "in _careless_request"),
    "input is not looked at": (contract, "validate", lambda _method, data: data, " in "),
    "a broken message is told to somebody else": (Scanner, "address", lambda *_: 3, "wrong"),
    "a broken message is told to nobody": (Scanner, "address", lambda *_: None, "TypeError|ValueError"),
    "a msgid in flight is taken again": (Connection, "__init__", _blind_connection, "wrong"),
    "a broken connection goes on": (Connection, "_break", _forgetful_break, "wrong"),
    "a pair is not settled": (Stock, "issue", lambda *_: None, "wrong"),
    "a method fails": (Dispatcher, "_ping", _fails, "RuntimeError in _fails"),
}


@pytest.mark.parametrize(("owner", "name", "planted", "kind"), PLANTED.values(), ids=PLANTED)
def test_a_planted_defect_is_found(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, planted: Any, kind: str
) -> None:
    monkeypatch.setattr(owner, name, planted)
    tally = fuzzed(Target())
    found = [finding for finding in tally.findings if any(word in finding.kind for word in kind.split("|"))]
    assert found
    assert all(finding.stream and finding.case >= 0 for finding in found)


def test_a_found_case_is_found_again_by_its_number_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_map_without_doubt", dict)
    target = Target()
    first = fuzzed(target).findings[0]
    again = Tally()
    inside.run(Target(), Maker(SEED, target.words), range(first.case, first.case + 1), again)
    assert again.findings == [first]


# --- cases


def test_a_case_is_known_by_its_seed_and_number() -> None:
    words = Words((b"blob",))
    one, other, stranger = Maker(1, words), Maker(1, words), Maker(2, words)
    cases = [one.case(number) for number in range(50)]
    assert [other.case(number) for number in reversed(range(50))] == cases[::-1]
    assert [stranger.case(number) for number in range(50)] != cases
    assert len({case.stream for case in cases}) == 50


def test_cases_are_cut_in_every_way() -> None:
    maker = Maker(1, Words((b"blob",)))
    cuts = Counter(
        "whole" if len(case.pieces) == 1 else "bytes" if max(map(len, case.pieces)) == 1 else "some"
        for case in map(maker.case, range(1000))
    )
    assert min(cuts["whole"], cuts["some"]) > 100
    assert cuts["bytes"] > 2


# --- memory, and what a run tells


def test_memory_that_rises_is_told_from_memory_that_was_warmed_up() -> None:
    luck = random.Random(1)
    flat, leak = Memory(), Memory()
    for done in range(1000):
        warm = 50_000_000 - max(0, 150 - done) * 100_000
        flat.note(done, warm + luck.randrange(200_000))
        leak.note(done, warm + luck.randrange(200_000) + done * 10_000)
    assert abs(flat.growth) < 100_000
    assert leak.growth == pytest.approx(8_000_000, rel=0.05)
    assert leak.slope == pytest.approx(10_000, rel=0.05)
    assert leak.peak > flat.peak
    assert Memory().growth == Memory().slope == Memory().peak == 0


def test_of_each_kind_the_first_findings_are_kept_and_all_are_counted() -> None:
    parts = [Tally() for _ in range(3)]
    for number, part in enumerate(parts):
        part.find(Finding("wrong", "a", number))
        part.find(Finding("wrong", "b", number))
        part.find(Finding("KeyError in f", "line 1", number))
    whole = Tally()
    for part in parts:
        whole.add(part)
    assert whole.found == {"wrong": 6, "KeyError in f": 3}
    assert Counter(finding.kind for finding in whole.findings) == {"wrong": 3, "KeyError in f": 3}


def sleeps(_numbers: range) -> Tally:
    while True:
        signal.pause()


def test_cases_that_never_end_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "_CHUNK_TIMEOUT_S", 0.05)
    with pytest.raises(campaign.HangError):
        campaign._do(sleeps, range(1))


def told_of(
    *, defects: list[str] | None = None, complaints: list[str] | None = None, failures: int = 0,
    leak: int = 0, keys: tuple[int, ...] = (1, 2), answered: int = 9, found: int = 0,
) -> Result:  # fmt: skip
    """The part over the socket, of a run that was well but for what is said."""
    tally = Tally(cases=5, messages=10, reached=answered, public_keys=list(keys))
    for case in range(found):
        tally.find(Finding("wrong", "a", case))
    memory = Memory()
    for second in range(100):
        memory.note(second, 50_000_000 + leak * second)
    fuzzed = SimpleNamespace(memory=memory, defects=lambda: defects or [], outcomes={})
    witness = SimpleNamespace(served_s=[0.001] * 20, failures=Counter(ThrottlingException=failures))
    return results.of_outside(
        Campaign(tally, {}, 1.0), cast(Fuzzed, fuzzed), cast(Witness, witness), complaints or []
    )


@pytest.mark.parametrize(
    "fault",
    [
        {"defects": ["defect in a connection: KeyError at f:1"]},
        {"complaints": ["the books of RSA_2048 do not add up"]},
        {"failures": 1},
        {"leak": 200_000},
        {"keys": (1, 2, 1)},
        {"answered": 2},
        {"found": 1},
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_each_fault_of_a_daemon_makes_the_part_fail(fault: dict[str, Any]) -> None:
    assert results.is_clean(told_of())
    assert not results.is_clean(told_of(**fault))
    assert [row.verdict for row in told_of(**fault).rows].count("missed") == 1


def _command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command with its cases run in this process, where defects can be planted."""

    def run(work: campaign.Work, _messages: int, _jobs: int, _step: object) -> Campaign:
        return Campaign(work(range(CASES)), {}, 1.0)

    monkeypatch.setattr(campaign, "run", run)
    monkeypatch.setattr(covered, "measure", lambda _seed, _messages: {})
    monkeypatch.setattr(sys, "argv", ["bench.fuzz", "--over-socket", "0", "--seed", str(SEED), *arguments])
    return command.main()


def test_the_command_says_what_was_found_and_shows_one_case_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "found.json"
    monkeypatch.setattr(wire, "_map_without_doubt", dict)
    assert _command(monkeypatch, "--json", str(path)) == 1
    finding = json.loads(path.read_text())["parts"]["inside"]["detail"]["findings"][0]
    assert f"FOUND wrong: {finding['detail']}, case {finding['case']}" in capsys.readouterr().out
    assert _command(monkeypatch, "--case", str(finding["case"])) == 1
    shown = capsys.readouterr().out.splitlines()
    assert "".join(shown[:-1]) == finding["stream"]
    assert shown[-1].endswith(finding["stream"])
    monkeypatch.undo()
    assert _command(monkeypatch, "--case", str(finding["case"])) == 0
    assert _command(monkeypatch) == 0


@pytest.mark.parametrize(
    "arguments", [["--messages", "-1"], ["--messages", "0", "--over-socket", "0"], ["--jobs", "0"], ["--x"]]
)
def test_wrong_usage(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.fuzz", *arguments])
    with pytest.raises(SystemExit) as caught:
        command.main()
    assert caught.value.code == 2


def test_blobs_that_cases_hold_open_in_process(target: Target) -> None:
    """Or no case would see what comes behind a sound blob."""
    for blob in target.words.blobs:
        assert target.keyring.decrypt(blob, {}).key.state == "Enabled"
    assert msgpack.packb(target.words.blobs) == msgpack.packb(Target().words.blobs)
