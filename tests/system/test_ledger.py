"""The ledger and the alarm under the real daemon: what comes twice is caught over restarts, stops all
issuing, and stays so until an administrator has looked."""

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kpcache.errors import KMSInvalidStateException
from kpcache.keyring import document
from kpcache.keyring.document import Document
from kpcache.keyring.seal import Unlock
from kpcache.keyring.vault import Vault
from tests.system.harness import PATIENCE_S, Daemon, pools, running
from tests.system.repeating_daemon import SPEC

ONE_MAKER = pools(**{SPEC: 16}) + "[workers]\nshards = 1\nmakers = 1\n"
REPEATING = [sys.executable, str(Path(__file__).with_name("repeating_daemon.py"))]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kpcache", *command],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def take(daemon: Daemon) -> dict[str, Any]:
    with daemon.client() as client:
        return dict(client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=SPEC))


def keyring_of(daemon: Daemon) -> Document:
    return document.decode((daemon.state_dir / "keyring.json").read_bytes())


def fill_once(folder: Path, *command: str) -> dict[str, Any]:
    """A life of a daemon; the status at its end."""
    with running(folder, ONE_MAKER, list(command) or REPEATING) as daemon:
        daemon.wait_full()
        return daemon.status()


def test_a_pair_of_an_earlier_life_stops_all_issuing_until_the_alarm_is_cleared(tmp_path: Path) -> None:
    first = fill_once(tmp_path)
    assert (first["alarm"], first["issuing"], first["ledger"]["rolled_back"]) == (None, True, "")
    with running(tmp_path, ONE_MAKER, REPEATING) as daemon:
        line = daemon.wait_log("ALARM: a fresh ECC_NIST_P256 pair")
        assert "shares a prime or a public key with an earlier one" in line
        daemon.wait_log("a restart does not clear it")
        status = daemon.status()
        assert (status["issuing"], status["alarm"]["durable"]) == (False, True)
        assert status["discarded"][SPEC]["duplicate"] == 1
        with pytest.raises(KMSInvalidStateException) as caught:
            take(daemon)
        assert caught.value.reason == "not_issuing"
    # A sound daemon this time, and none the less.
    with running(tmp_path, ONE_MAKER) as daemon:
        with pytest.raises(KMSInvalidStateException):
            take(daemon)
        assert daemon.status()["pools"][SPEC]["generated"] == 0
        assert "ALARM since" in run("status", "--socket", daemon.socket).stdout
        refused = run("clear-alarm", "--socket", daemon.socket)
        assert (refused.returncode, "needs --yes, or --show" in refused.stderr) == (2, True)
        shown = run("clear-alarm", "--show", "--json", "--socket", daemon.socket)
        [found] = json.loads(shown.stdout)["Duplicates"]
        assert found["KeyPairSpec"] == SPEC
        assert found["PublicKeySha256"].startswith(found["Earlier"]["PublicKeySha256Prefix"])
        assert (found["Life"], found["Earlier"]["Life"]) == (2, 1)
        assert found["MadeBy"].startswith("maker 0 of shard 0")
        cleared = run("clear-alarm", "--yes", "--socket", daemon.socket)
        assert (cleared.returncode, found["PublicKeySha256"] in cleared.stderr) == (0, True), cleared.stderr
        assert "the alarm is cleared" in cleared.stdout
        daemon.wait_full()
        assert take(daemon)["KeyPairSpec"] == SPEC
        assert run("clear-alarm", "--yes", "--socket", daemon.socket).returncode == 1
    assert fill_once(tmp_path, sys.executable, "-m", "kpcache")["issuing"]


def test_at_the_alarm_all_pairs_made_so_far_are_burnt_and_their_makers_replaced(tmp_path: Path) -> None:
    with running(tmp_path, ONE_MAKER, REPEATING) as daemon:
        daemon.wait_full()
        before = daemon.workers()
        take(daemon)  # so that a pair is missing, for which the next maker is asked
        os.kill(before["maker"][0], signal.SIGKILL)
        for _ in range(32):
            with contextlib.suppress(KMSInvalidStateException):
                take(daemon)
        daemon.wait_log("ALARM: a fresh ECC_NIST_P256 pair")
        daemon.wait_log("shard 0 ended (the alarm was raised)")
        deadline = time.monotonic() + PATIENCE_S
        while not all((now := daemon.workers()).values()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not set(now["maker"]) & set(before["maker"])
        assert not set(now["shard"]) & set(before["shard"])
        pool = daemon.status()["pools"][SPEC]
        assert (pool["ready"], pool["held"], pool["in_hand"]) == (0, 0, 0)
        assert pool["generated"] == pool["issued"] + pool["discarded"]


def test_without_its_ledger_the_daemon_would_not_notice(tmp_path: Path) -> None:
    """So what the test above finds is found by the ledger and by nothing else."""
    for _ in range(2):
        status = fill_once(tmp_path, *REPEATING, "blind")
        assert (status["alarm"], status["issuing"]) == (None, True)


def test_a_copy_of_the_ledger_that_is_put_back_is_shown_until_it_is_acknowledged(tmp_path: Path) -> None:
    tags = fill_once(tmp_path, sys.executable, "-m", "kpcache")["ledger"]["tags"]
    ledger = tmp_path / "state" / "ledger.db"
    shutil.copy(ledger, tmp_path / "copy")
    with running(tmp_path, ONE_MAKER) as daemon:
        daemon.wait_full()
        for _ in range(8):
            take(daemon)
        daemon.wait_full()
    shutil.copy(tmp_path / "copy", ledger)
    for _ in range(2):
        with running(tmp_path, ONE_MAKER) as daemon:
            daemon.wait_log("the ledger is rolled back")
            assert "an older copy was put back" in daemon.status()["ledger"]["rolled_back"]
            assert take(daemon)  # it is shown, and no more
    with running(tmp_path, ONE_MAKER) as daemon:
        assert "ROLLED BACK" in run("status", "--socket", daemon.socket).stdout
        done = run("ledger", "acknowledge", "--socket", daemon.socket)
        assert (done.returncode, "acknowledged" in done.stdout) == (0, True), done.stderr
        assert daemon.status()["ledger"]["rolled_back"] == ""
        assert run("ledger", "acknowledge", "--socket", daemon.socket).returncode == 1
    status = fill_once(tmp_path, sys.executable, "-m", "kpcache")
    assert (status["ledger"]["rolled_back"], status["ledger"]["tags"] > tags) == ("", True)


def test_a_missing_ledger_is_shown_and_the_keyring_knows_the_new_one(tmp_path: Path) -> None:
    with running(tmp_path, ONE_MAKER) as daemon:
        first = daemon.status()["ledger"]["id"]
        assert keyring_of(daemon).ledger_id == first
        key = keyring_of(daemon).tag_key
        assert len(key) == 32
    for path in (tmp_path / "state").glob("ledger.*"):
        path.unlink()
    with running(tmp_path, ONE_MAKER) as daemon:
        ledger = daemon.status()["ledger"]
        assert f"the ledger {first} that was used here is missing" in ledger["rolled_back"]
        assert keyring_of(daemon).ledger_id == ledger["id"] != first
        assert keyring_of(daemon).tag_key == key


def test_an_imported_keyring_brings_its_tag_key_and_tells_that_its_ledger_is_not_here(tmp_path: Path) -> None:
    """It may have come without it: then nothing that was made under it is known again."""
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here):
        folder.mkdir()
    with running(there, pools()) as daemon:
        content = keyring_of(daemon)
    state = here / "state"
    state.mkdir(mode=0o700)
    Vault.import_first(state, content, unlock=Unlock())
    with running(here, pools()) as daemon:
        assert keyring_of(daemon).tag_key == content.tag_key
        assert keyring_of(daemon).reserve_secret not in (b"", content.reserve_secret)
        assert (
            f"the ledger {content.ledger_id} that was used here is missing"
            in (daemon.status()["ledger"]["rolled_back"])
        )
    for path in state.glob("ledger.*"):
        path.unlink()
    for name in ("ledger.db", "ledger.note"):
        shutil.copy(there / "state" / name, state)
    keyring = state / "keyring.json"
    shutil.copy(there / "state" / "keyring.json", keyring)
    with running(here, pools()) as daemon:
        assert daemon.status()["ledger"]["rolled_back"] == "", "the ledger came along"


def test_the_ledger_of_another_keyring_is_refused_with_the_cure(tmp_path: Path) -> None:
    with running(tmp_path, pools()):
        pass
    state = tmp_path / "state"
    for path in state.glob("keyring*"):
        path.unlink()
    ledger = (state / "ledger.db").rename(tmp_path / "ledger.db")
    for path in state.iterdir():
        path.unlink()
    with running(tmp_path, pools()):
        pass
    before = ledger.read_bytes()
    shutil.copy(ledger, state / "ledger.db")
    daemon = Daemon(tmp_path, pools())
    try:
        assert daemon.process.wait(PATIENCE_S) == 2
    finally:
        daemon.kill()
    assert "was made with the tag key of another keyring" in daemon.log[0]
    assert "put the keyring here that belongs to it" in daemon.log[0]
    assert (state / "ledger.db").read_bytes() == before


def test_a_keyring_of_an_earlier_kpcache_gets_its_tag_key_at_the_start(tmp_path: Path) -> None:
    with running(tmp_path, pools()) as daemon:
        revision = daemon.status()["keyring"]["revision"]
    path = tmp_path / "state" / "keyring.json"
    old = json.loads(path.read_bytes())
    for name in ("tag_key", "ledger_id", "reserve_secret"):
        del old["content"][name]
    old["version"] = 2
    old["checksum"] = document._checksum(old["content"])
    path.write_text(json.dumps(old))
    for each in (tmp_path / "state").glob("ledger.*"):
        each.unlink()
    keys = []
    for _ in range(2):
        with running(tmp_path, ONE_MAKER) as daemon:
            daemon.wait_full()
            assert daemon.status()["keyring"]["revision"] == revision
            assert daemon.status()["ledger"]["rolled_back"] == ""
            content = keyring_of(daemon)
            keys.append((content.tag_key, content.reserve_secret))
    assert list(map(len, keys[0])) == [32, 32]
    assert keys[0] == keys[1]


def test_nothing_of_the_tag_key_is_in_the_log_or_the_ledger(tmp_path: Path) -> None:
    with running(tmp_path, ONE_MAKER) as daemon:
        daemon.wait_full()
        key = keyring_of(daemon).tag_key
    forms = (key, key.hex().encode(), base64.b64encode(key))
    told = "\n".join(daemon.log).encode() + (daemon.state_dir / "ledger.db").read_bytes()
    assert not any(form in told for form in forms)


def test_a_whole_state_folder_that_is_put_back_is_shown_while_the_machine_was_not_rebooted(
    tmp_path: Path,
) -> None:
    """Nothing in it can tell: its note, its keyring and its ledger are of one age."""
    fill_once(tmp_path, sys.executable, "-m", "kpcache")
    state, copy = tmp_path / "state", tmp_path / "copy"
    shutil.copytree(state, copy)
    with running(tmp_path, ONE_MAKER) as daemon:
        daemon.wait_full()
    shutil.rmtree(state)
    copy.rename(state)
    with running(tmp_path, ONE_MAKER) as daemon:
        daemon.wait_log("the ledger is rolled back")
        assert "an older copy was put back" in daemon.status()["ledger"]["rolled_back"]
        assert take(daemon)


def test_a_runtime_folder_that_cannot_be_used_is_told_and_is_no_reason_not_to_serve(tmp_path: Path) -> None:
    (tmp_path / "reserve").touch()
    with running(tmp_path, ONE_MAKER) as daemon:
        assert "an older copy" in daemon.wait_log("daemon.runtime_dir cannot be used")
        daemon.wait_full()
        assert take(daemon)


def test_a_second_daemon_on_one_state_folder_refuses_with_the_cure_and_harms_nothing(tmp_path: Path) -> None:
    with running(tmp_path, ONE_MAKER) as daemon:
        daemon.wait_full()
        config = tmp_path / "second.toml"
        config.write_text(
            f'[daemon]\nsocket = "{tmp_path}/2/s"\nstate_dir = "{daemon.state_dir}"\n'
            f'runtime_dir = "{tmp_path}/3"\n'
        )
        second = run("serve", "--config", str(config))
        assert second.returncode == 2
        assert f"another kpcache process uses {daemon.state_dir}" in second.stderr
        assert "stop it or let it finish; for a second daemon set its own daemon.state_dir" in second.stderr
        assert take(daemon)
        daemon.wait_full()
        assert daemon.status()["ledger"]["available"]
    assert fill_once(tmp_path, sys.executable, "-m", "kpcache")["ledger"]["rolled_back"] == ""
