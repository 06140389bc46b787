"""``kpcache keyring export`` and ``import``: what was encrypted opens elsewhere, also with age itself."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyrage
import pytest

from kpcache.errors import InvalidCiphertextException
from kpcache.keyring import document
from tests.system.fake_server import FakeServer, encode_answer
from tests.system.harness import PATIENCE_S, Daemon, pools, running
from tests.system.keyring_commands import (
    KPCACHE,
    ORDINARY,
    Typist,
    answer,
    environment,
    keyring,
    said,
    secret_file,
)

# No pool: a pair is made when it is asked for, so that a start is quick.
CONFIG = pools()
SPEC = "ECC_NIST_P256"
PASSPHRASE = "correct horse battery staple"
needs_age = pytest.mark.skipif(
    shutil.which("age") is None, reason="NOT TESTED: age is not installed (Debian: apt-get install age)"
)


def new_identity(folder: Path) -> tuple[str, str]:
    """A file with a new identity, and its recipient."""
    identity = pyrage.x25519.Identity.generate()
    return secret_file(folder / "identity", f"# a comment\n{identity}\n"), str(identity.to_public())


def pair(daemon: Daemon, key: str = "alias/kpcache") -> dict[str, Any]:
    with daemon.client() as client:
        return dict(client.generate_data_key_pair(KeyId=key, KeyPairSpec=SPEC))


def opens(daemon: Daemon, one: dict[str, Any]) -> bool:
    with daemon.client() as client:
        try:
            plaintext = client.decrypt(CiphertextBlob=one["PrivateKeyCiphertextBlob"])["Plaintext"]
        except InvalidCiphertextException:
            return False
    return bytes(one["PrivateKeyPlaintext"]) == plaintext


def unexported(daemon: Daemon) -> int:
    count: int = daemon.status()["keyring"]["unexported_changes"]
    return count


# Round trips


@pytest.mark.parametrize("running_at_export", [True, False])
def test_an_export_opens_everything_in_an_empty_folder(tmp_path: Path, running_at_export: bool) -> None:
    identity, recipient = new_identity(tmp_path)
    lost, found = tmp_path / "lost", tmp_path / "found"
    lost.mkdir()
    found.mkdir()
    export = ["export", "--recipient", recipient, "--out", str(tmp_path / "k.age")]
    with running(lost, CONFIG) as daemon:
        blobs = [pair(daemon)]
        answer(lost, "rotate", "alias/kpcache")
        answer(lost, "create", "--alias", "alias/app", "--tag", "a=b")
        blobs += [pair(daemon), pair(daemon, "alias/app")]
        assert unexported(daemon) > 0
        told = answer(lost, "describe", "alias/app")
        if running_at_export:
            said(lost, *export)
            assert unexported(daemon) == 0
    if not running_at_export:
        said(lost, *export)
    shutil.rmtree(lost / "state")
    text = (lost / "kpcache.toml").read_text().replace(str(lost), str(found))
    (found / "kpcache.toml").write_text(text)
    result = answer(found, "import", str(tmp_path / "k.age"), "--identity", identity)
    assert (len(result["KeysAdded"]), result["AliasesAdded"]) == (2, ["alias/app", "alias/kpcache"])
    assert (found / "state/keyring.made").exists()
    with running(found, CONFIG) as daemon:
        assert all(opens(daemon, one) for one in blobs)
        assert unexported(daemon) == 0, "what was imported is in an export"
        assert answer(found, "describe", "alias/app") == told


@pytest.mark.parametrize("running_at_import", [True, False])
def test_an_import_adds_and_replaces_nothing(tmp_path: Path, running_at_import: bool) -> None:
    identity, recipient = new_identity(tmp_path)
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    with running(there, CONFIG) as daemon:
        answer(there, "create", "--alias", "alias/theirs")
        theirs = [pair(daemon), pair(daemon, "alias/theirs")]
        said(there, "export", "--recipient", recipient, "--out", str(tmp_path / "k.age"))
    take = ["import", str(tmp_path / "k.age"), "--identity", identity]
    with running(here, CONFIG) as daemon:
        ours, before = pair(daemon), answer(here, "describe", "alias/kpcache")
        if running_at_import:
            result = answer(here, *take)
    if not running_at_import:
        result = answer(here, *take)
    assert (len(result["KeysAdded"]), result["AliasesAdded"], result["AliasesKept"]) == (
        2, ["alias/theirs"], ["alias/kpcache"],
    )  # fmt: skip
    with running(here, CONFIG) as daemon:
        assert all(opens(daemon, one) for one in [ours, *theirs])
        assert answer(here, "describe", "alias/kpcache") == before
        assert unexported(daemon) == 2, "the first key, and the import"
        assert "nothing added" in said(here, *take)
        assert unexported(daemon) == 2


# age itself


@needs_age
def test_age_opens_an_export_and_an_import_opens_what_age_made(tmp_path: Path) -> None:
    identity, recipient = new_identity(tmp_path)
    with running(tmp_path, CONFIG):
        said(tmp_path, "export", "--recipient", recipient, "--out", "ours.age")
        plain = age(tmp_path, "-d", "-i", identity, "ours.age")
        assert plain.startswith(b'{\n "format": "kpcache keyring",')
        assert document.decode(plain).aliases.keys() == {"alias/kpcache"}
        (tmp_path / "plain").write_bytes(plain)
        age(tmp_path, "-e", "-r", recipient, "-o", "binary.age", "plain")
        age(tmp_path, "-e", "-a", "-r", recipient, "-o", "armored.age", "plain")
        for name in ("binary.age", "armored.age"):
            assert "nothing added" in said(tmp_path, "import", name, "--identity", identity)


@needs_age
def test_a_passphrase_serves_here_and_there(tmp_path: Path) -> None:
    """Asked for twice on a terminal and never shown; age asks for it in the same way."""
    with running(tmp_path, CONFIG) as daemon:
        config = str(tmp_path / "kpcache.toml")
        export = [*ORDINARY, *KPCACHE, "keyring", "export", "--out", "ours.age", "--config", config]
        with Typist(export, tmp_path) as typist:
            typist.wait_for(r"Passphrase \(12 characters or more\): ")
            assert not readable(typist.process.pid), "before it gets what is to be kept secret"
            typist.type(PASSPHRASE)
            typist.wait_for("Once more: ")
            typist.type(PASSPHRASE)
            typist.wait_for("this takes some seconds")
            assert typist.end() == 0, typist.shown
        assert PASSPHRASE not in typist.shown
        assert unexported(daemon) == 0
        with Typist(["age", "-d", "-o", "plain", "ours.age"], tmp_path) as typist:
            typist.wait_for("passphrase")
            typist.type(PASSPHRASE)
            assert typist.end() == 0, typist.shown
        assert document.decode((tmp_path / "plain").read_bytes()).revision == 1
        with Typist(["age", "-e", "-p", "-o", "theirs.age", "plain"], tmp_path) as typist:
            for asked in ("Enter passphrase", "Confirm passphrase"):
                typist.wait_for(asked)
                typist.type(PASSPHRASE)
            assert typist.end() == 0, typist.shown
        with Typist([*KPCACHE, "keyring", "import", "theirs.age", "--config", config], tmp_path) as typist:
            typist.wait_for("Passphrase of the export: ")
            typist.type(PASSPHRASE)
            assert typist.end() == 0, typist.shown
            assert "nothing added" in typist.shown


def age(folder: Path, *args: str) -> bytes:
    done = subprocess.run(
        ["age", *args], cwd=folder, capture_output=True, timeout=PATIENCE_S, check=True, env=environment()
    )
    return done.stdout


def readable(pid: int) -> bool:
    """Whether another process of the same user, without root's powers, can look into this one."""
    probe = subprocess.run([*ORDINARY, "cat", f"/proc/{pid}/environ"], capture_output=True, check=False)
    return probe.returncode == 0


# What is refused


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("too short", None, "fewer than 12 characters"),
        (PASSPHRASE, PASSPHRASE + ".", "the two passphrases differ"),
    ],
)
def test_a_passphrase_is_long_and_typed_twice_the_same(
    tmp_path: Path, first: str, second: str | None, words: str
) -> None:
    with Typist([*KPCACHE, "keyring", "export", "--out", "k.age"], tmp_path) as typist:
        typist.wait_for("Passphrase")
        typist.type(first)
        if second is not None:
            typist.wait_for("Once more")
            typist.type(second)
        assert typist.end() == 2
    assert words in typist.shown
    assert os.listdir(tmp_path) == []


def test_what_does_not_open_changes_nothing(tmp_path: Path) -> None:
    identity, recipient = new_identity(tmp_path)
    (tmp_path / "other").mkdir()
    other, _ = new_identity(tmp_path / "other")
    right = secret_file(tmp_path / "right", PASSPHRASE)
    wrong = secret_file(tmp_path / "wrong", "another passphrase")
    with running(tmp_path, CONFIG) as daemon:
        answer(tmp_path, "create")
        said(tmp_path, "export", "--recipient", recipient, "--out", "k.age")
        said(tmp_path, "export", "--passphrase-file", right, "--out", "p.age")
        whole = (tmp_path / "k.age").read_bytes()
        (tmp_path / "cut.age").write_bytes(whole[:-200])
        (tmp_path / "no.age").write_bytes(b"keys")
        (tmp_path / "thing.age").write_bytes(encrypted(recipient, b"a letter"))
        for args, code, words in (
            (["k.age", "--identity", other], 1, "k.age: not opened (No matching keys found)"),
            (["p.age", "--passphrase-file", wrong], 1, "the passphrase is another, or the file is damaged"),
            (["cut.age", "--identity", identity], 1, "cut.age: cut off"),
            (["no.age", "--identity", identity], 1, "no.age: not an age file"),
            (["thing.age", "--identity", identity], 1, "what is in it cannot be used: it is not JSON"),
            (["k.age", "--passphrase-file", right], 2, "give its identity with --identity"),
            (["p.age", "--identity", identity], 2, "give --passphrase-file"),
        ):
            done = keyring(tmp_path, "import", *args)
            assert (done.returncode, done.stdout) == (code, "")
            assert words in done.stderr
            assert done.stderr.count("\n") == 1
        assert daemon.status()["keyring"]["revision"] == 2


def encrypted(recipient: str, content: bytes) -> bytes:
    return bytes(pyrage.encrypt(content, [pyrage.x25519.Recipient.from_str(recipient)]))


def test_a_lost_keyring_is_restored_into_an_empty_folder_only(tmp_path: Path) -> None:
    identity, recipient = new_identity(tmp_path)
    with running(tmp_path, CONFIG) as daemon:
        one = pair(daemon)
        said(tmp_path, "export", "--recipient", recipient, "--out", "k.age")
    (tmp_path / "state/keyring.json").unlink()
    take = ["import", "k.age", "--identity", identity]
    refused = keyring(tmp_path, *take)
    assert refused.returncode == 2
    assert "move this folder away and import an export" in refused.stderr
    os.rename(tmp_path / "state", tmp_path / "state.lost")
    assert "added keys: " in said(tmp_path, *take)
    with running(tmp_path, CONFIG) as daemon:
        assert opens(daemon, one)


def test_a_keyring_with_which_no_daemon_would_start_is_not_imported(tmp_path: Path) -> None:
    identity, recipient = new_identity(tmp_path)
    with running(tmp_path, CONFIG):
        said(tmp_path, "export", "--recipient", recipient, "--out", "k.age")
    shutil.rmtree(tmp_path / "state")
    with open(tmp_path / "kpcache.toml", "a") as file:
        file.write('[keyring]\ndefault_alias = "alias/other"\n')
    done = keyring(tmp_path, "import", "k.age", "--identity", identity)
    assert done.returncode == 2
    assert "the export has no alias/other" in done.stderr
    assert "its aliases: alias/kpcache; nothing was imported" in done.stderr
    assert not (tmp_path / "state/keyring.json").exists()


# What counts as exported


def test_an_export_is_private_named_by_its_time_and_never_replaces_another(tmp_path: Path) -> None:
    _, recipient = new_identity(tmp_path)
    with running(tmp_path, CONFIG) as daemon:
        told = answer(tmp_path, "export", "--recipient", recipient)
        assert re.fullmatch(r"kpcache-keyring-\d{8}T\d{6}Z\.age", told["File"])
        assert told["Revision"] == 1
        assert (tmp_path / told["File"]).stat().st_mode & 0o777 == 0o600
        content = (tmp_path / told["File"]).read_bytes()
        answer(tmp_path, "create")
        again = keyring(tmp_path, "export", "--recipient", recipient, "--out", told["File"])
        assert again.returncode == 2
        assert "exists" in again.stderr
        assert (tmp_path / told["File"]).read_bytes() == content
        assert unexported(daemon) == 1


def test_what_goes_to_stdout_is_whole_and_not_counted(tmp_path: Path) -> None:
    identity, recipient = new_identity(tmp_path)
    with running(tmp_path, CONFIG) as daemon:
        done = keyring(tmp_path, "export", "--recipient", recipient, "--out", "-")
        assert done.returncode == 0
        assert "not counted" in done.stderr
        assert unexported(daemon) == 1
        again = keyring(tmp_path, "import", "-", "--identity", identity, stdin=done.stdout)
        assert (again.returncode, again.stderr) == (0, "")


def test_an_export_that_does_not_fit_its_disk_leaves_nothing_and_is_not_counted(tmp_path: Path) -> None:
    _, recipient = new_identity(tmp_path)
    with running(tmp_path, CONFIG) as daemon:
        small_disk = ["prlimit", "--fsize=100:100"]
        done = keyring(tmp_path, "export", "--recipient", recipient, "--out", "k.age", prefix=small_disk)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "kpcache: k.age: File too large; nothing was exported\n"
        assert not (tmp_path / "k.age").exists()
        assert unexported(daemon) == 1


def test_an_export_that_could_not_be_noted_is_said_to_be_whole(tmp_path: Path) -> None:
    identity, recipient = new_identity(tmp_path)
    plain = b"a document"
    answers = [
        (None, {"KeyringDocument": plain, "Revision": 3}),
        ({"Code": "KeyUnavailableException", "Message": "no space left"}, None),
    ]
    with FakeServer(tmp_path / "kpcache.sock"), FakeServer(tmp_path / "admin.sock") as server:
        server.fault = lambda number, msgid: [encode_answer(msgid, *answers[number - 1])]
        socket = ["--socket", str(tmp_path / "kpcache.sock")]
        done = keyring(tmp_path, "export", "--recipient", recipient, "--out", "k.age", *socket, config=False)
        assert [method for method, _ in server.requests] == ["kpcache.ExportKeyring", "kpcache.MarkExported"]
        assert server.requests[1][1] == [{"Revision": 3}]
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "kpcache: k.age is a whole export; only that it was made could not be noted"
    )
    assert "KeyUnavailableException: no space left" in done.stderr
    key = pyrage.x25519.Identity.from_str(Path(identity).read_text().splitlines()[1])
    assert pyrage.decrypt((tmp_path / "k.age").read_bytes(), [key]) == plain
