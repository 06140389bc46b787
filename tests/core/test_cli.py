"""The command line's own rules: arguments, words, levels, what is shown. No daemon, no process."""

import argparse
import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.cli.decrypt import blob_in
from kpcache.cli.files import PairFiles
from kpcache.cli.fill import below, fill_fraction
from kpcache.cli.main import build_parser, main
from kpcache.cli.output import (
    TryAgainError,
    UsageError,
    as_json,
    context_members,
    in_words,
    positive_seconds,
)
from kpcache.cli.reporters import LiveReporter, PlainReporter
from kpcache.cli.tables import (
    alarm_lines,
    config_lines,
    console_for,
    duration,
    keyring_line,
    ledger_line,
    memory_lines,
    reserve_line,
    status_view,
)
from kpcache.cli.wait import level, missing_for, wait_for
from kpcache.errors import (
    DaemonUnreachableError,
    InvalidCiphertextException,
    KpcacheError,
    ThrottlingException,
    from_wire,
)

Status = dict[str, Any]


def status(**held: int) -> Status:
    """Pools of 8, low watermark 2, each with so many pairs."""
    pools = {
        spec: {"ready": min(n, 1), "held": max(n - 1, 0), "target": 8, "low_water": 2, "issued": 0, "dry": 0,
               "generated": n, "discarded": 0, "in_hand": 0, "waiting": 0}
        for spec, n in held.items()
    }  # fmt: skip
    return {
        "version": "9.9", "ready": min(held.values(), default=8) >= 2,
        "refill": {"makers": 2, "allowed": 1, "holding_back": False},
        "ready_level": "low_water", "full": min(held.values(), default=8) >= 8,
        "issuing": True, "clone_guard": "none", "draining": False, "uptime_s": 61.0, "pools": pools,
        "connections": 3, "quiesced": False, "discarded": {},
        "config": {"file": "/k.toml", "last_reload": {"at": 1.8e9, "successful": True, "error": ""},
                   "waits_for_restart": []},
        "ledger": dict(LEDGER), "alarm": None,
        "memory": {"wiped_on_free": True, "dumpable": False, "core_limit": 0, "swap": "none"},
        "reserve": {"on": True, "why": "", "restored": 7, "burnt_last_restart": 2, "burnt_is_exact": True},
        "keyring": {"default_alias": "alias/kpcache", "keys": 1, "revision": 4, "exported_revision": 2,
                    "unexported_changes": 2, "sealed": "file", "fault": "", "default_key_state": "Enabled"},
        "workers": [{"role": "maker", "shard": 0, "maker": 1, "pid": None, "state": "backoff", "restarts": 2,
                     "reason": "exit 3: \x1b[31mno\nluck [bold]"}],
    }  # fmt: skip


# Arguments


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["fetch"],
        ["get"],
        ["get", "RSA_1024"],
        ["get", "RSA_2048", "--count", "0"],
        ["get", "RSA_2048", "--wait", "-1"],
        ["get", "RSA_2048", "--wait", "inf"],
        ["get", "RSA_2048", "--wait", "nan"],
        ["get", "RSA_2048", "--format", "pkcs12"],
        ["wait", "--level", "half"],
        ["wait", "--level", "low_water"],
        ["wait", "--level", "0%"],
        ["wait", "--level", "101%"],
        ["check-config"],
        ["keyring"],
        ["keyring", "describe"],
        ["keyring", "alias"],
        ["keyring", "alias", "move", "alias/a"],
        ["keyring", "delete", "alias/a", "--days", "6"],
        ["keyring", "delete", "alias/a", "--days", "soon"],
        ["keyring", "delete", "alias/a", "--days", "31"],
        ["keyring", "delete", "alias/a", "--days", "7", "--cancel"],
        ["keyring", "tag", "alias/a"],
        ["keyring", "export", "--passphrase-file", "f", "--recipient", "age1x"],
        ["keyring", "import", "f", "--passphrase-file", "f", "--identity", "i"],
    ],
)
def test_wrong_arguments_are_exit_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["get", "ML_KEM_768", "--format", "openssh"], "no tool has that form for ML_KEM_768"),
        (["get", "ECC_SECG_P256K1", "--format", "openssh"], "no tool has that form"),
        (["get", "RSA_2048", "--count", "2", "--format", "pem"], "needs --out DIR"),
        (["get", "RSA_2048", "--context", "app"], "must be K=V"),
        (["decrypt", "--context", "=v", "-"], "must be K=V"),
        (["decrypt", "/nonexistent/blob"], "No such file"),
        (["check-config", "/nonexistent/kpcache.toml"], "No such file"),
        (["get", "RSA_2048", "--out", "/dev/null"], "is not a folder"),
        (["get", "RSA_2048", "--out", "/nonexistent/a/b"], "No such file"),
    ],
)
def test_wrong_usage_is_told_in_a_line(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("kpcache: ")
    assert words in told.err
    assert told.err.count("\n") == 1


@pytest.mark.parametrize("command", ["serve", "get", "decrypt", "status", "wait", "check-config"])
def test_every_command_takes_a_socket(command: str) -> None:
    rest = {"get": ["RSA_2048"], "decrypt": ["-"], "check-config": ["file"]}.get(command, [])
    assert build_parser().parse_args([command, "--socket", "/s", *rest]).socket == "/s"


@pytest.mark.parametrize(
    "argv",
    [
        ["keyring", "--socket", "/s", "list"],
        ["keyring", "list", "--socket", "/s"],
        ["keyring", "alias", "delete", "alias/a", "--socket", "/s"],
        ["keyring", "--socket", "/t", "export", "--socket", "/s"],
    ],
)
def test_a_keyring_command_takes_a_socket_before_and_behind_its_name(argv: list[str]) -> None:
    assert build_parser().parse_args(argv).socket == "/s"


def test_a_context_divides_at_the_first_equals_sign() -> None:
    assert context_members([]) == {}
    assert context_members(["a=b=c", "d="]) == {"EncryptionContext": {"a": "b=c", "d": ""}}
    with pytest.raises(UsageError, match="twice"):
        context_members(["a=1", "a=1"])


def test_seconds_are_finite_and_not_negative() -> None:
    assert positive_seconds("0.5") == 0.5
    for text in ("-0.1", "inf", "nan"):
        with pytest.raises(argparse.ArgumentTypeError):
            positive_seconds(text)


# Words


def test_json_is_the_aws_clis() -> None:
    answer = {"PublicKey": b"\x00\xff", "KeyId": "k"}
    assert as_json(answer) == '{\n    "PublicKey": "AP8=",\n    "KeyId": "k"\n}'
    assert as_json(answer, one_line=True) == '{"PublicKey":"AP8=","KeyId":"k"}'


def test_errors_in_words() -> None:
    dry = ThrottlingException("no pair at hand", reason="pool_dry", retry_after_s=0.5)
    assert in_words(dry) == "ThrottlingException (pool_dry): no pair at hand; try again in 0.5 s"
    assert "another encryption context" in in_words(InvalidCiphertextException())
    assert in_words(DaemonUnreachableError("no daemon on /s")) == "no daemon on /s"
    assert in_words(TryAgainError("the folder is in use")) == "the folder is in use"
    assert in_words(from_wire({"Code": "New", "Message": "words"})) == "New: words"
    off = from_wire({"Code": "DisabledException", "Message": "arn:x is disabled."})
    assert in_words(off).endswith("is disabled. (an administrator can enable it: kpcache keyring enable KEY)")


@given(st.binary(min_size=1).filter(lambda blob: not blob.lstrip().startswith(b"{")))
def test_a_blob_is_found_raw_and_in_json(blob: bytes) -> None:
    assert blob_in(blob, "f") == blob
    for member in ("PrivateKeyCiphertextBlob", "CiphertextBlob"):
        for one_line in (True, False):
            text = as_json({"KeyId": "k", member: blob}, one_line=one_line)
            assert blob_in(b"\n " + text.encode(), "f") == blob


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        '{"PrivateKeyCiphertextBlob": 5}',
        '{"PrivateKeyCiphertextBlob": "a"}',
        '{"PrivateKeyCiphertextBlob": ""}',
        '{"PrivateKeyCiphertextBlob": "AAAA"}\n{"PrivateKeyCiphertextBlob": "AAAA"}',
        '{"PrivateKeyCiphertextBlob": "é"}',
        '{"PublicKey": "AAAA"}',
    ],
)
def test_json_without_one_blob_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^f: "):
        blob_in(text.encode(), "f")


# Levels


def test_the_fraction_weighs_pairs_by_their_cost() -> None:
    assert fill_fraction(status(RSA_4096=0, ECC_NIST_P256=8)["pools"]) < 0.01
    assert fill_fraction(status(RSA_4096=8, ECC_NIST_P256=0)["pools"]) > 0.99
    assert fill_fraction(status(RSA_2048=8)["pools"]) == 1.0
    assert fill_fraction({}) == 1.0


@given(st.integers(0, 20), st.integers(1, 100))
def test_below_counts_ready_and_held(held: int, percent: int) -> None:
    missing = below(status(RSA_2048=held)["pools"], f"{percent}%")
    enough = -(-8 * percent // 100)
    assert missing == ({} if held >= enough else {"RSA_2048": f"{held}/{enough}"})


def test_levels_and_what_is_missing() -> None:
    half = status(RSA_2048=4, RSA_3072=8)
    assert missing_for("ready", half) == ""
    assert missing_for("50%", half) == ""
    assert missing_for("51%", half) == "RSA_2048 4/5"
    assert missing_for("ready", status(RSA_2048=1)) == "RSA_2048 1/2"
    assert missing_for("full", half) == "RSA_2048 4/8"
    assert level("7%") == "7%"


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += max(seconds, 0.001)


def test_wait_ends_when_the_level_is_reached() -> None:
    clock, answers = Clock(), iter([status(RSA_2048=1), status(RSA_2048=2)])
    assert wait_for("ready", 60, lambda: next(answers), clock=clock, sleep=clock.sleep) == 0
    assert clock.now < 1


def test_wait_out_of_time_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    assert wait_for("full", 2, lambda: status(RSA_2048=3), clock=clock, sleep=clock.sleep) == 4
    assert "not full after 2 s: RSA_2048 3/8" in capsys.readouterr().err
    assert 2 <= clock.now < 2.1


def absent(cause: OSError | None) -> Status:
    raise DaemonUnreachableError("no daemon") from cause


def test_wait_waits_for_a_daemon_to_come_up_and_says_when_none_does() -> None:
    clock = Clock()
    with pytest.raises(DaemonUnreachableError):
        wait_for("ready", 2, lambda: absent(FileNotFoundError()), clock=clock, sleep=clock.sleep)
    assert 2 <= clock.now < 2.1


@pytest.mark.parametrize("cause", [None, PermissionError()])
def test_wait_does_not_wait_for_a_stranger_or_a_closed_door(cause: OSError | None) -> None:
    clock = Clock()
    with pytest.raises(DaemonUnreachableError):
        wait_for("ready", 2, lambda: absent(cause), clock=clock, sleep=clock.sleep)
    assert clock.now == 0


# What is shown


def test_the_tables_show_pools_and_workers_and_obey_no_escape() -> None:
    stream = io.StringIO()
    console_for(stream).print(status_view(status(RSA_2048=3, RSA_4096=8), "/s"))
    text = stream.getvalue()
    assert "kpcache 9.9 on /s: ready; up 1 min 1 s; connections: 3" in text
    assert "keyring: 1 key, a plain file; 2 changes never exported: run kpcache keyring export" in text
    assert "RSA_4096" in text
    assert r"exit 3: \x1b[31mno\nluck [bold]" in text
    assert "\x1b" not in text


def test_what_was_burnt_is_told_with_the_reasons_and_quiesced_is_no_alarm() -> None:
    told = status(RSA_2048=3, RSA_4096=8)
    told["discarded"] = {"RSA_2048": {"worker_lost": 4, "client_gone": 2}, "RSA_4096": {"too_old": 1}}
    told["issuing"], told["quiesced"] = False, True
    stream = io.StringIO()
    console_for(stream).print(status_view(told, "/s"))
    assert "burnt: RSA_2048 2 client_gone, 4 worker_lost; RSA_4096 1 too_old" in stream.getvalue()
    assert "QUIESCED, see kpcache resume" in stream.getvalue()
    told["quiesced"] = False
    console_for(stream).print(status_view(told, "/s"))
    assert "NOT ISSUING" in stream.getvalue()


def test_the_reserve_line_says_what_a_restart_costs() -> None:
    reserve = status()["reserve"]
    assert "reserve: on; the last restart kept 7 pairs and burnt 2" in str(reserve_line(reserve))
    assert "burnt at least 2" in str(reserve_line({**reserve, "burnt_is_exact": False}))
    off = reserve_line({**reserve, "on": False, "why": "/x is on a \x1bdisk"})
    assert r"reserve: off, a restart burns the pools: /x is on a \x1bdisk" in str(off)


def test_settings_are_told_of_only_where_some_are_not_in_force() -> None:
    config = status()["config"]
    assert config_lines(config) == []
    last = {"at": 1.8e9, "successful": False, "error": "/k.toml: pools.X.target = '\x1b': must be"}
    lines = config_lines({**config, "last_reload": last, "waits_for_restart": ["metrics.listen", "aws.keys"]})
    refused, waiting = map(str, lines)
    assert "REFUSED on 2027-01-15" in refused
    assert r"pools.X.target = '\x1b': must be" in refused
    assert waiting == "settings: not in force until a restart: metrics.listen, aws.keys"


def test_memory_is_told_of_only_where_keys_could_get_elsewhere() -> None:
    memory = status()["memory"]
    assert memory_lines(memory) == []
    [line] = memory_lines({**memory, "wiped_on_free": False, "dumpable": True, "swap": "possible"})
    for part in ("not overwritten", "can read it", "swap: possible"):
        assert part in str(line)
    [line] = memory_lines({**memory, "core_limit": -1})
    assert "core file" in str(line)


LEDGER = {
    "id": "ab", "tags": 3, "bytes": 1 << 20, "available": True, "fault": "", "rolled_back": "", "waiting": 0,
}  # fmt: skip


def test_the_ledger_line_says_what_is_wrong_with_it() -> None:
    assert ledger_line(LEDGER).plain == "ledger: 3 tags, 1.0 MiB"
    full = ledger_line({**LEDGER, "available": False, "fault": "/s/ledger.db: database or disk is full\x1b"})
    assert full.plain == r"ledger: UNAVAILABLE, no new pairs: /s/ledger.db: database or disk is full\x1b"
    assert full.style == "red"
    back = ledger_line({**LEDGER, "rolled_back": "it has 3 tags, and had 5"})
    assert (
        "ROLLED BACK: it has 3 tags, and had 5; if you know why, run kpcache ledger acknowledge" in back.plain
    )
    assert back.spans[0].style == "red"


def test_the_alarm_is_told_in_red_and_leads_to_its_evidence() -> None:
    assert alarm_lines(None) == []
    [line] = alarm_lines({"since_s": 0.0, "spec": "RSA_2048", "duplicates": 1, "durable": True})
    assert line.plain.startswith(
        "ALARM since 1970-01-01 00:00 UTC: 1 duplicate among fresh pairs, the first of RSA_2048"
    )
    assert "kpcache clear-alarm --show" in line.plain
    assert "red" in str(line.style)
    [line] = alarm_lines({"since_s": 0.0, "spec": "", "duplicates": 0, "durable": False})
    assert line.plain.startswith(
        "ALARM since 1970-01-01 00:00 UTC or before, and its evidence cannot be read"
    )
    assert "kpcache clear-alarm --show" in line.plain


def test_the_keyring_line_says_what_is_sealed_and_what_is_exported() -> None:
    keyring = {
        "keys": 2, "unexported_changes": 1, "sealed": "credential", "fault": "",
        "default_alias": "alias/kpcache", "default_key_state": "Enabled",
    }  # fmt: skip
    assert keyring_line(keyring).plain.startswith(
        "keyring: 2 keys, sealed (credential); 1 change never exported"
    )
    keyring["unexported_changes"] = 0
    assert keyring_line(keyring).plain == "keyring: 2 keys, sealed (credential); all of it exported"
    keyring["default_key_state"] = "PendingDeletion"
    assert "; alias/kpcache is PendingDeletion; all of it" in keyring_line(keyring).plain
    keyring["fault"] = "/state/keyring.json: removed\x1b"
    assert keyring_line(keyring).plain == (r"keyring: FAULT: /state/keyring.json: removed\x1b")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (3600, "1 h 0 min"), (90061, "1 d 1 h")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_plain_progress_is_a_line_a_quarter() -> None:
    stream = io.StringIO()
    reporter = PlainReporter(stream, {"KPCACHE_SOCKET": "/s"})
    reporter.serving(status(RSA_2048=0), socket="/s", state_dir="/d")
    for held in range(9):
        for _ in range(5):
            reporter.progress(status(RSA_2048=held))
    reporter.full(status(RSA_2048=8))
    reporter.notice("maker 0 lost\x1b[2J")
    reporter.stopping()
    lines = [line.removeprefix("kpcache: ") for line in stream.getvalue().splitlines()]
    assert lines[0] == "9.9 serves on /s; keys and state are in /d"
    assert lines[1].endswith("try: kpcache get RSA_2048")
    assert lines[2:7] == [
        "pools are 25% full",
        "pools are 50% full",
        "pools are 75% full",
        "pools are full",
        r"maker 0 lost\x1b[2J",
    ]
    assert lines[7].startswith("stopping")


def test_what_to_try_names_the_socket_where_a_client_would_not_find_it() -> None:
    stream = io.StringIO()
    PlainReporter(stream, {"KPCACHE_SOCKET": "/other"}).serving(status(), socket="/s", state_dir="/d")
    assert "kpcache get RSA_2048 --socket /s" in stream.getvalue()


def test_a_file_that_appears_meanwhile_is_not_replaced_and_nothing_half_written_stays(tmp_path: Path) -> None:
    files = PairFiles(str(tmp_path), "ECC_NIST_P256", "der", 1)
    (tmp_path / "ecc_nist_p256.blob").write_bytes(b"another's")
    with pytest.raises(KpcacheError, match="this pair is lost"):
        files.write({"PublicKey": b"p", "PrivateKeyPlaintext": b"k", "PrivateKeyCiphertextBlob": b"b"}, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["ecc_nist_p256.blob"]
    assert (tmp_path / "ecc_nist_p256.blob").read_bytes() == b"another's"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_live_display_ends_when_full_and_lines_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    reporter = LiveReporter(stream, {"KPCACHE_SOCKET": "/s"})
    reporter.serving(status(RSA_2048=0), socket="/s", state_dir="/d")
    reporter.progress(status(RSA_2048=4))
    reporter.notice("a maker was lost")
    reporter.full(status(RSA_2048=8))
    assert "\x1b[?25h" in stream.getvalue()  # the cursor is back
    shown = len(stream.getvalue())
    reporter.progress(status(RSA_2048=8))
    assert len(stream.getvalue()) == shown
    reporter.stopping()
    text = stream.getvalue()
    assert "a maker was lost" in text
    assert "pools are full" in text
    assert "stopping" in text[shown:]


class Gone(Terminal):
    def write(self, _text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("reporter_class", [PlainReporter, LiveReporter])
def test_a_reporter_outlives_its_terminal(reporter_class: Any) -> None:
    reporter = reporter_class(Gone(), {})
    reporter.serving(status(RSA_2048=0), socket="/s", state_dir="/d")
    reporter.progress(status(RSA_2048=4))
    reporter.notice("n")
    reporter.full(status(RSA_2048=8))
    reporter.stopping()


def test_check_config_prints_settings_that_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "k.toml"
    file.write_text("[pools.RSA_2048]\ntarget = 12\n")
    assert main(["check-config", "--socket", "/x/s", str(file)]) == 0
    told = capsys.readouterr()
    assert "target = 12\nlow_water = 3\n" in told.out
    assert 'socket = "/x/s"' in told.out
    assert not told.err
    file.write_text("[pools.RSA_2048]\ntarget = -1\n")
    assert main(["check-config", str(file)]) == 2
    assert "pools.RSA_2048.target = -1: must be" in capsys.readouterr().err


def test_base64_of_blobs_is_standard() -> None:
    blob = bytes(range(256))
    assert json.loads(as_json({"b": blob}))["b"] == base64.b64encode(blob).decode()
