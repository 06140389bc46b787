"""``kpcache keyring`` against the real daemon, and on the keyring of one that is stopped."""

import json
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kpcache.errors import DisabledException, InvalidCiphertextException, KMSInvalidStateException
from kpcache.keyring import Keyring, changes
from tests.system.fake_server import FakeServer, encode_answer
from tests.system.harness import Daemon, pools, running
from tests.system.keyring_commands import KPCACHE, ORDINARY, Typist, answer, keyring, said
from tests.vaults import open_vault

# No pool: a pair is made when it is asked for, so that a start is quick.
CONFIG = pools()
SPEC = "ECC_NIST_P256"
ARN = "arn:aws:kms:local:000000000000:"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("daemon"), CONFIG) as daemon:
        yield daemon


@pytest.fixture
def key(daemon: Daemon) -> str:
    """The id of a key of one test's own."""
    made: str = answer(daemon.folder, "create")["KeyMetadata"]["KeyId"]
    return made


def pair(daemon: Daemon, key: str) -> dict[str, Any]:
    with daemon.client() as client:
        return dict(client.generate_data_key_pair(KeyId=key, KeyPairSpec=SPEC))


def opened(daemon: Daemon, answer: dict[str, Any]) -> bytes:
    with daemon.client() as client:
        return client.decrypt(CiphertextBlob=answer["PrivateKeyCiphertextBlob"])["Plaintext"]


# While the daemon runs


def test_a_key_is_made_with_all_that_is_told_of_it(daemon: Daemon) -> None:
    args = ["--alias", "alias/app", "--description", "für Bücher", "--tag", "team=a=b", "--tag", "env="]
    made = answer(daemon.folder, "create", *args)["KeyMetadata"]
    assert (made["Description"], made["KeyState"], made["KeySpec"]) == (
        "für Bücher", "Enabled", "SYMMETRIC_DEFAULT",
    )  # fmt: skip
    everything = answer(daemon.folder, "describe", "alias/app")
    assert everything["KeyMetadata"] == made
    assert [alias["AliasName"] for alias in everything["Aliases"]] == ["alias/app"]
    assert everything["Tags"] == [
        {"TagKey": "env", "TagValue": ""},
        {"TagKey": "team", "TagValue": "a=b"},
    ]
    assert [entry["KeyMaterialState"] for entry in everything["Rotations"]] == ["CURRENT"]
    for form in (made["KeyId"], made["Arn"], f"{ARN}alias/app"):
        assert answer(daemon.folder, "describe", form) == everything
    shown = said(daemon.folder, "describe", "alias/app")
    for text in (made["KeyId"], "für Bücher", "team=a=b", made["CurrentKeyMaterialId"]):
        assert text in shown


def test_the_list_has_every_key_and_alias(daemon: Daemon, key: str) -> None:
    listed = answer(daemon.folder, "list")
    assert {"KeyId": key, "KeyArn": f"{ARN}key/{key}"} in listed["Keys"]
    assert "alias/kpcache" in [alias["AliasName"] for alias in listed["Aliases"]]
    shown = said(daemon.folder, "list")
    assert all(entry["KeyId"] in shown for entry in listed["Keys"])
    assert "alias/kpcache" in shown


def test_aliases_are_created_moved_and_deleted(daemon: Daemon, key: str) -> None:
    name = f"alias/of-{key}"
    assert said(daemon.folder, "alias", "create", name, key) == f"{name} is now a name of key {key}\n"
    again = keyring(daemon.folder, "alias", "create", name, key)
    assert (again.returncode, again.stdout) == (1, "")
    assert "AlreadyExistsException" in again.stderr
    assert answer(daemon.folder, "alias", "move", name, "alias/kpcache") == {}
    assert answer(daemon.folder, "describe", name)["KeyMetadata"]["KeyId"] != key
    assert "its key stays" in said(daemon.folder, "alias", "delete", name)
    gone = keyring(daemon.folder, "describe", name)
    assert (gone.returncode, gone.stderr) == (
        1,
        f"kpcache: NotFoundException: Alias {ARN}{name} is not found. "
        "(the keys that there are: kpcache keyring list)\n",
    )  # fmt: skip


def test_a_rotated_key_opens_what_it_encrypted_before(daemon: Daemon, key: str) -> None:
    before = pair(daemon, key)
    assert answer(daemon.folder, "rotate", key) == {"KeyId": f"{ARN}key/{key}"}
    assert "still opens" in said(daemon.folder, "rotate", key)
    after = pair(daemon, key)
    assert before["KeyMaterialId"] != after["KeyMaterialId"]
    assert opened(daemon, before) == before["PrivateKeyPlaintext"]
    materials = answer(daemon.folder, "describe", key)["Rotations"]
    assert [entry["KeyMaterialState"] for entry in materials] == ["NON_CURRENT", "NON_CURRENT", "CURRENT"]
    assert materials[-1]["KeyMaterialId"] == after["KeyMaterialId"]


def test_a_disabled_key_opens_nothing_until_it_is_enabled(daemon: Daemon, key: str) -> None:
    one = pair(daemon, key)
    assert "neither encrypts nor opens" in said(daemon.folder, "disable", key)
    with pytest.raises(DisabledException):
        opened(daemon, one)
    refused = keyring(daemon.folder, "rotate", key)
    assert refused.returncode == 1
    assert refused.stderr.endswith(f"is disabled. First: kpcache keyring enable {key}\n")
    assert answer(daemon.folder, "enable", key) == {}
    assert opened(daemon, one) == one["PrivateKeyPlaintext"]


def test_a_clock_that_is_refused_is_not_told_to_be_a_deletion_to_cancel(tmp_path: Path) -> None:
    error = {"Code": "KMSInvalidStateException", "Message": "The clock was set by +192.0 hours."}
    with FakeServer(tmp_path / "kpcache.sock"), FakeServer(tmp_path / "admin.sock") as server:
        server.fault = lambda _number, msgid: [encode_answer(msgid, error, None)]
        socket = ["--socket", str(tmp_path / "kpcache.sock")]
        done = keyring(tmp_path, "delete", "k", *socket, config=False)
    assert done.returncode == 1
    assert done.stderr == f"kpcache: {error['Code']}: {error['Message']}\n"


def test_a_deletion_is_scheduled_and_cancelled(daemon: Daemon, key: str) -> None:
    one = pair(daemon, key)
    result = answer(daemon.folder, "delete", key, "--days", "7")
    assert (result["KeyState"], result["PendingWindowInDays"]) == ("PendingDeletion", 7)
    assert "not before" in said(daemon.folder, "describe", key)
    with pytest.raises(KMSInvalidStateException):
        opened(daemon, one)
    for command in (["enable"], ["rotate"], ["delete"], ["alias", "create", "alias/late"], ["tag"]):
        more = ["a=b"] if command == ["tag"] else []
        refused = keyring(daemon.folder, *command, key, *more)
        assert refused.returncode == 1
        assert refused.stderr.endswith(f"To keep it: kpcache keyring delete {key} --cancel\n")
    early = keyring(daemon.folder, "purge", key, "--yes-destroy", key)
    assert early.returncode == 1
    assert "cannot be destroyed before" in early.stderr
    assert f"kpcache keyring enable {key}" in said(daemon.folder, "delete", key, "--cancel")
    said(daemon.folder, "enable", key)
    assert opened(daemon, one) == one["PrivateKeyPlaintext"]
    assert answer(daemon.folder, "delete", key)["PendingWindowInDays"] == 30
    assert answer(daemon.folder, "delete", key, "--cancel") == {"KeyId": f"{ARN}key/{key}"}


def test_tags_come_and_go(daemon: Daemon, key: str) -> None:
    assert answer(daemon.folder, "tag", key, "a=1", "b=2") == {}
    said(daemon.folder, "tag", key, "a=3")
    assert answer(daemon.folder, "describe", key)["Tags"] == [
        {"TagKey": "a", "TagValue": "3"}, {"TagKey": "b", "TagValue": "2"},
    ]  # fmt: skip
    assert answer(daemon.folder, "untag", key, "a", "never-there") == {}
    assert said(daemon.folder, "untag", key, "b")
    assert answer(daemon.folder, "describe", key)["Tags"] == []


def test_what_a_start_needs_is_kept(daemon: Daemon) -> None:
    refused = keyring(daemon.folder, "alias", "delete", "alias/kpcache")
    assert refused.returncode == 1
    assert "keyring.default_alias" in refused.stderr


def test_a_client_socket_finds_the_way_too(daemon: Daemon) -> None:
    listed = answer(daemon.folder, "list")
    for option, environ in (["--socket", daemon.socket], {}), ([], {"KPCACHE_SOCKET": daemon.socket}):
        done = keyring(daemon.folder, "list", "--json", *option, config=False, **environ)
        assert json.loads(done.stdout) == listed


def test_a_list_longer_than_a_page_is_shown_whole(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(0o700)
    vault = open_vault(state)

    def many(content: Any) -> Any:
        for number in range(120):
            content = changes.create_key(content, description="", tags={}, now=0.0, urandom=os.urandom)
            content = changes.create_alias(content, f"alias/{number}", content.keys[-1].key_id)
        return content

    vault.change(many)
    with running(tmp_path, CONFIG) as daemon:
        listed = answer(daemon.folder, "list")
    assert {key["KeyId"] for key in listed["Keys"]} == {key.key_id for key in vault.content.keys}
    assert len(listed["Aliases"]) == 121


def test_the_status_shows_the_keyring(daemon: Daemon) -> None:
    command = [*KPCACHE, "status", "--socket", daemon.socket]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    changed = daemon.status()["keyring"]["unexported_changes"]
    assert ", a plain file; " in told
    assert f"{changed} change" in told
    assert "never exported: run kpcache keyring export" in told


def test_administration_is_for_root_and_the_daemons_user(tmp_path: Path) -> None:
    with running(tmp_path, CONFIG) as daemon:
        os.chmod(daemon.admin_socket, 0)
        done = keyring(tmp_path, "list", prefix=ORDINARY)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"{daemon.admin_socket} is for root and for the user that the daemon runs as" in done.stderr


# Purge


@pytest.fixture(scope="module")
def doomed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, dict[str, bytes]]]:
    """A daemon; a blob of each key by its id: first the one in use, then two whose days are over."""
    folder = tmp_path_factory.mktemp("doomed")
    (folder / "state").mkdir(0o700)
    vault = open_vault(folder / "state", now=lambda: 0.0)
    blobs: dict[str, bytes] = {}
    for _ in range(2):
        vault.change(
            lambda content: changes.create_key(
                content, description="old", tags={}, now=0.0, urandom=os.urandom
            )
        )
    content = vault.content
    user = Keyring(content)
    for record in content.keys:
        blobs[record.key_id] = user.encrypt(user.resolve(record.key_id), b"private key", {}).blob
    for record in content.keys[1:]:
        vault.change(partial(changes.schedule_deletion, key_id=record.key_id, days=7, now=0.0))
    with running(folder, CONFIG) as daemon:
        yield daemon, blobs


def test_purge_destroys_only_what_is_named_twice(doomed: tuple[Daemon, dict[str, bytes]]) -> None:
    daemon, blobs = doomed
    in_use, key, _ = blobs
    for option, words in (
        ([], "without a terminal to ask on it needs --yes-destroy"),
        (["--yes-destroy", in_use], "nothing was destroyed"),
    ):
        refused = keyring(daemon.folder, "purge", key, *option)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert words in refused.stderr
    other = keyring(daemon.folder, "purge", in_use, "--yes-destroy", in_use)
    assert other.returncode == 1
    assert f"run kpcache keyring delete {in_use}" in other.stderr
    assert answer(daemon.folder, "purge", key, "--yes-destroy", key) == {"KeyId": f"{ARN}key/{key}"}
    with daemon.client() as client:
        with pytest.raises(InvalidCiphertextException):
            client.decrypt(CiphertextBlob=blobs[key])
        assert client.decrypt(CiphertextBlob=blobs[in_use])["Plaintext"] == b"private key"
    assert keyring(daemon.folder, "describe", key).returncode == 1


def test_purge_asks_for_the_keys_id_on_a_terminal(doomed: tuple[Daemon, dict[str, bytes]]) -> None:
    daemon, blobs = doomed
    in_use, _, key = blobs
    command = [*KPCACHE, "keyring", "purge", key, "--config", str(daemon.folder / "kpcache.toml")]
    for typed in ("yes", "", in_use):
        with Typist(command, daemon.folder) as typist:
            typist.wait_for("can then never be opened again")
            typist.wait_for("Type the key's id to destroy it: ")
            typist.type(typed)
            assert typist.end() == 2
            assert "nothing was destroyed" in typist.shown
    with Typist(command, daemon.folder) as typist:
        typist.wait_for(r"\(old\), made 1970-01-01 00:00 UTC")
        typist.wait_for(r"days ended 1970-01-08 00:00 UTC, by a clock that says \d{4}-")
        typist.wait_for("destroy it: ")
        typist.type(key)
        assert typist.end() == 0
        assert f"key {key} is destroyed here" in typist.shown
    assert keyring(daemon.folder, "describe", key).returncode == 1
