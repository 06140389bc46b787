"""``kpcache clear-alarm`` shows what it is about before it asks, and clears nothing on any other answer."""

import contextlib
import io
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from kpcache.cli import clear_alarm
from kpcache.cli.main import main

DIGEST = "ab" * 32
FOUND = {
    "KeyPairSpec": "RSA_2048", "PublicKey": b"spki", "PublicKeySha256": DIGEST, "FoundDate": 60.0,
    "MadeBy": "maker 1 of shard 0, start 2", "Life": 3,
    "Earlier": {
        "PublicKeySha256Prefix": "cd" * 8, "RecordedDate": 0.0, "MadeBy": "maker 0 of shard 0, start 0",
        "Life": 1,
    },
}  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class FakeDaemon:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stands, self.durable, self.unreadable = True, True, ""
        self.asked: list[str] = []
        self.found = [FOUND]
        self.found_later: list[dict[str, Any]] = []
        monkeypatch.setattr(clear_alarm, "running", self._running)

    @contextlib.contextmanager
    def _running(self, _args: object) -> Iterator["FakeDaemon"]:
        yield self

    def call(self, method: str, _members: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(method)
        if method == "ClearAlarm":
            return {"Cleared": 1}
        duplicates = list(self.found)
        self.found += self.found_later
        return {
            "Standing": self.stands, "Durable": self.durable, "Unreadable": self.unreadable,
            "Duplicates": duplicates,
        }  # fmt: skip


@pytest.mark.parametrize(("answer", "code"), [("clear\n", 0), ("yes\n", 2), ("", 2)])
def test_it_asks_for_the_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, code: int
) -> None:
    daemon = FakeDaemon(monkeypatch)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert main(["clear-alarm"]) == code
    assert daemon.asked == ["DescribeAlarm", *(["DescribeAlarm", "ClearAlarm"] if code == 0 else [])]
    told = capsys.readouterr().err
    for each in (DIGEST, "cd" * 8, "c3BraQ==", "maker 1 of shard 0, start 2", "start 1", "Type clear to let"):
        assert each in told


def test_what_is_found_while_it_asks_is_not_cleared_unseen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Batches that waited for a disk may bring more of them, minutes later."""
    daemon = FakeDaemon(monkeypatch)
    daemon.found_later = [{**FOUND, "PublicKeySha256": "ef" * 32}]
    monkeypatch.setattr(sys, "stdin", Terminal("clear\n"))
    assert main(["clear-alarm"]) == 1
    assert "ClearAlarm" not in daemon.asked
    assert "1 more were found since these were shown" in capsys.readouterr().err


def test_evidence_that_is_not_in_the_ledger_is_told_as_such(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = FakeDaemon(monkeypatch)
    daemon.durable = False
    assert main(["clear-alarm", "--show"]) == 0
    assert daemon.asked == ["DescribeAlarm"]
    assert "not in the ledger, which could not be written; the daemon's log says" in capsys.readouterr().err


def test_an_alarm_whose_evidence_cannot_be_read_can_be_shown_and_cleared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = FakeDaemon(monkeypatch)
    daemon.found, daemon.durable, daemon.unreadable = [], False, "/run/x/alarm.json: Input/output error"
    assert main(["clear-alarm", "--yes"]) == 0
    assert daemon.asked[-1] == "ClearAlarm"
    told = capsys.readouterr().err
    assert "an alarm whose evidence cannot be read: /run/x/alarm.json: Input/output error" in told
    assert "Find the cause first" in told


def test_where_no_alarm_stands_there_is_nothing_to_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = FakeDaemon(monkeypatch)
    daemon.stands = False
    assert main(["clear-alarm", "--yes"]) == 1
    assert daemon.asked == ["DescribeAlarm"]
