"""The alarm stops all issuing whatever the disk does, tells what is known, and goes only if it is cleared."""

import hashlib
from typing import Any, cast

import pytest

from kpcache.daemon.alarm import Alarm, Incidents
from kpcache.daemon.alarm_file import AlarmFile
from kpcache.daemon.dispatcher import Gate
from kpcache.daemon.ledger import Ledger
from kpcache.daemon.ledger_batch import Duplicate, Earlier, MakerStart
from kpcache.errors import KeyUnavailableException, KMSInvalidStateException
from tests.fakes import mock_clock

EARLIER = Earlier(bytes(range(8)), 600.0, MakerStart(0, 1, 2), 3)
FOUND = Duplicate("RSA_2048", b"the public key", 1200.0, MakerStart(4, 5, 6), 7, EARLIER)
OTHER = Duplicate("RSA_4096", b"another", 1260.0, MakerStart(4, 5, 6), 7, EARLIER)


class House:
    def __init__(self) -> None:
        self.gate = Gate()
        self.calls: list[str] = []
        self.alarm = Alarm(
            self.gate, stop=lambda: self.calls.append("stop"), resume=lambda: self.calls.append("resume")
        )
        self.failure: Exception | None = None
        self.rolled_back = ""
        self.incidents = Incidents(self.alarm, cast(Ledger, self))

    # As a ledger does.

    async def clear_alarm(self) -> None:
        assert not self.gate.issuing, "durable before anything is given out"
        if self.failure is not None:
            raise self.failure

    async def acknowledge(self) -> None:
        if self.failure is not None:
            raise self.failure
        self.rolled_back = ""

    def status(self) -> dict[str, Any]:
        return {"rolled_back": self.rolled_back}


def test_it_stops_issuing_once_and_names_both_public_keys(caplog: pytest.LogCaptureFixture) -> None:
    it = House()
    assert (it.alarm.status(), it.alarm.stands, it.gate.issuing) == (None, False, True)
    it.alarm.find([FOUND], True)
    it.alarm.find([FOUND, OTHER], True)
    assert (it.calls, it.gate.issuing) == (["stop"], False)
    assert it.gate.refusal().reason == "not_issuing"
    assert it.alarm.status() == {"since_s": 1200.0, "spec": "RSA_2048", "duplicates": 2, "durable": True}
    digest = hashlib.sha256(b"the public key").hexdigest()
    assert f"a fresh RSA_2048 pair (SHA-256 of its public key {digest}, maker 5 of shard 4" in caplog.text
    assert "(SHA-256 begins with 0001020304050607, maker 1 of shard 0, start 2)" in caplog.text
    assert caplog.text.count("ALARM") == 2
    assert caplog.text.count("a restart does not clear it") == 1
    first = it.alarm.describe()["Duplicates"][0]
    assert (first["PublicKey"], first["PublicKeySha256"], first["Life"]) == (b"the public key", digest, 7)
    assert first["Earlier"]["RecordedDate"] == 600.0


def test_it_stops_issuing_though_it_cannot_be_written_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    it = House()
    it.alarm.find([FOUND], False)
    assert not it.gate.issuing
    assert not it.alarm.describe()["Durable"]
    it.alarm.find([FOUND], False)
    assert caplog.text.count("the alarm could not be written to the ledger") == 1
    it.alarm.find([FOUND], True)
    assert it.alarm.describe()["Durable"]
    assert "the alarm is in the ledger now" in caplog.text
    assert it.calls == ["stop"]


@mock_clock
async def test_it_is_cleared_only_when_that_is_durable() -> None:
    it = House()
    with pytest.raises(KMSInvalidStateException, match="No alarm stands"):
        await it.incidents.clear_alarm()
    it.alarm.find([FOUND, OTHER], True)
    it.failure = KeyUnavailableException("disk I/O error")
    with pytest.raises(KeyUnavailableException):
        await it.incidents.clear_alarm()
    assert (it.gate.issuing, it.incidents.describe_alarm()["Standing"]) == (False, True)
    it.failure = None
    assert (await it.incidents.clear_alarm())[0] == {"Cleared": 2}
    assert (it.gate.issuing, it.calls) == (True, ["stop", "resume"])
    nothing = {"Standing": False, "Durable": False, "Unreadable": "", "Duplicates": []}
    assert it.incidents.describe_alarm() == nothing


def test_what_an_earlier_life_left_stands_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    it, kept = House(), AlarmFile(None)
    it.alarm.recall([], kept)
    assert (it.alarm.stands, it.gate.issuing, it.calls) == (False, True, [])
    kept.duplicates = [OTHER]
    it.alarm.recall([FOUND], kept)
    assert (it.gate.issuing, it.calls) == (False, ["stop"])
    described = it.alarm.describe()
    assert (len(described["Duplicates"]), described["Durable"]) == (2, False)
    it.alarm.find([FOUND, OTHER], True)
    assert it.alarm.describe()["Durable"]
    assert caplog.text.count("the alarm is in the ledger now") == 1


@mock_clock
async def test_evidence_that_cannot_be_read_is_an_alarm_and_names_the_cure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    it, kept = House(), AlarmFile(None)
    kept.unreadable, kept.since_s = "/run/x/alarm.json: holds no evidence that can be read", 1260.0
    it.alarm.recall([], kept)
    assert (it.alarm.stands, it.gate.issuing, it.calls) == (True, False, ["stop"])
    assert "its evidence cannot be read (/run/x/alarm.json: holds no" in caplog.text
    assert "kpcache clear-alarm" in caplog.text
    assert it.alarm.status() == {"since_s": 1260.0, "spec": "", "duplicates": 0, "durable": False}
    assert it.incidents.describe_alarm()["Unreadable"] == kept.unreadable
    assert await it.incidents.clear_alarm() == (
        {"Cleared": 0},
        ["0 duplicates", "evidence that could not be read"],
    )
    assert (it.alarm.stands, it.gate.issuing, it.alarm.status()) == (False, True, None)


@mock_clock
async def test_a_rollback_is_acknowledged_once() -> None:
    it = House()
    with pytest.raises(KMSInvalidStateException, match="not rolled back"):
        await it.incidents.acknowledge_ledger()
    it.rolled_back = "it has 3 tags, and had 5"
    assert (await it.incidents.acknowledge_ledger())[0] == {"Acknowledged": "it has 3 tags, and had 5"}
    with pytest.raises(KMSInvalidStateException):
        await it.incidents.acknowledge_ledger()


def test_a_ledger_that_is_down_and_an_alarm_are_told_apart() -> None:
    gate = Gate(ledger_down=True)
    assert "ledger" in gate.refusal().message
    gate.alarm = True
    assert "duplicate" in gate.refusal().message
    gate.alarm = gate.ledger_down = False
    assert gate.issuing
