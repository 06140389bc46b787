"""The rules of ``kpcache keyring`` that need no daemon: what opens an export, refusals, what is shown."""

import argparse
import contextlib
import errno
import io
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpcache.cli.config_file import load_file
from kpcache.cli.keyring import access, age, copies, secret_input
from kpcache.cli.keyring.access import all_of
from kpcache.cli.keyring.changes import tell
from kpcache.cli.keyring.copies import import_in_words
from kpcache.cli.keyring.stopped import stopped
from kpcache.cli.keyring.tables import key_view, keys_table
from kpcache.cli.main import main
from kpcache.cli.output import OutputError, UsageError
from kpcache.cli.tables import console_for
from kpcache.errors import ConfigError, DaemonUnreachableError
from kpcache.worker.process import StartError
from tests.vaults import open_vault

KEY_ID = "00000000-0000-4000-8000-000000000001"
IDENTITY = pyrage.x25519.Identity.generate()
RECIPIENT = str(IDENTITY.to_public())
DOCUMENT = b'{"format": "kpcache keyring"}\n' * 3000
# Made once by `age -p` (Debian, version 1.1.1): a passphrase's file needs no seconds to be told from others.
OF_A_PASSPHRASE = b"age-encryption.org/v1\n-> scrypt bBjlhJVYZeE4aqUdmtRHfw 18\n"


def private_file(path: Path, text: str) -> str:
    path.touch(mode=0o600)
    path.write_text(text)
    return str(path)


# age files


def test_what_was_encrypted_to_recipients_opens_with_any_of_their_identities() -> None:
    other = pyrage.x25519.Identity.generate()
    export = age.to_recipients([RECIPIENT, str(other.to_public())])(DOCUMENT)
    assert export.startswith(b"-----BEGIN AGE ENCRYPTED FILE-----\n")
    assert not age.needs_passphrase(export)
    for identity in (IDENTITY, other):
        assert age.from_identities([str(identity)])(export) == DOCUMENT


def test_another_identity_opens_nothing() -> None:
    export = age.to_recipients([RECIPIENT])(DOCUMENT)
    with pytest.raises(age.ExportFileError, match="for another identity"):
        age.from_identities([str(pyrage.x25519.Identity.generate())])(export)


def test_a_passphrases_file_is_known_by_its_first_lines() -> None:
    assert age.needs_passphrase(OF_A_PASSPHRASE)


EXPORT = age.to_recipients([RECIPIENT])(DOCUMENT)


@settings(max_examples=300)
@given(st.integers(1, len(EXPORT) - 2))
def test_a_cut_export_is_told_to_be_one(length: int) -> None:
    with pytest.raises(age.ExportFileError, match=r"cut off|not an age file"):
        age.needs_passphrase(EXPORT[:length])


@settings(max_examples=300)
@given(st.integers(0, len(EXPORT) - 1), st.integers(1, 255))
def test_a_damaged_export_is_refused_or_opens_to_the_same(position: int, change: int) -> None:
    """White space at the end may change; nothing else may."""
    damaged = bytearray(EXPORT)
    damaged[position] ^= change
    with contextlib.suppress(age.ExportFileError):
        if not age.needs_passphrase(bytes(damaged)):
            assert age.from_identities([str(IDENTITY)])(bytes(damaged)) == DOCUMENT


@pytest.mark.parametrize("data", [b"", b"\n", b"keys", b"{}", b"-----BEGIN AGE ENCRYPTED FILE-----"])
def test_what_is_no_export_is_told_to_be_none(data: bytes) -> None:
    with pytest.raises(age.ExportFileError):
        age.needs_passphrase(data)


@pytest.mark.parametrize("name", ["", "age1", "age1xyz", RECIPIENT[:-1], str(IDENTITY), "ssh-ed25519 AAAA"])
def test_what_is_no_recipient_is_refused_with_how_to_get_one(name: str) -> None:
    with pytest.raises(UsageError, match="age-keygen -y"):
        age.to_recipients([RECIPIENT, name])


def test_an_identity_given_as_a_recipient_is_not_repeated() -> None:
    identity = str(pyrage.x25519.Identity.generate())
    for name in (identity, identity.lower()):
        with pytest.raises(UsageError) as caught:
            age.to_recipients([RECIPIENT, name])
        assert identity[15:].lower() not in str(caught.value).lower()
        assert "secret" in str(caught.value)


def test_a_change_without_an_answer_is_said_to_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that takes too long has perhaps made it all the same."""
    monkeypatch.setattr(access, "_TIMEOUT_S", 0.01)
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX) as clients,
        socket.socket(socket.AF_UNIX) as administrators,
    ):
        for listener, name in ((clients, "kpcache.sock"), (administrators, "admin.sock")):
            listener.bind(f"{folder}/{name}")
            listener.listen()
        arguments = argparse.Namespace(socket=f"{folder}/kpcache.sock", config=None)
        with access.running(arguments) as keyring, pytest.raises(DaemonUnreachableError) as caught:
            keyring.call("RotateKeyOnDemand", {"KeyId": "alias/kpcache"})
    assert "did not answer within" in caught.value.message
    assert "whether this was done is not known; look with kpcache keyring list" in caught.value.message


def test_no_key_is_in_this_process_before_it_is_closed_to_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def cannot(_name: str) -> None:
        raise StartError("no such call")

    monkeypatch.setattr("kpcache.worker.process.protect", cannot)
    config = tmp_path / "k.toml"
    config.write_text(
        f'[daemon]\nsocket = "{tmp_path}/s/kpcache.sock"\nstate_dir = "{tmp_path}/state"\n'
        f'runtime_dir = "{tmp_path}/reserve"\n'
    )
    (tmp_path / "state").mkdir(0o700)
    open_vault(tmp_path / "state")
    for command in (["list"], ["describe", "alias/kpcache"], ["export", "--recipient", RECIPIENT]):
        assert main(["keyring", *command, "--config", str(config)]) == 2
    monkeypatch.setattr("kpcache.worker.process.protect", lambda _name: None)
    assert main(["keyring", "list", "--config", str(config)]) == 0


def test_no_folder_is_made_for_a_user_who_could_not_use_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As of root, who imports into a state folder that is missing in another user's."""
    monkeypatch.setattr("kpcache.cli.keyring.stopped.keep_unreadable", lambda: None)
    toml = tmp_path / "k.toml"
    toml.write_text(f'[daemon]\nstate_dir = "{tmp_path}/a/state"\nruntime_dir = "{tmp_path}/reserve"\n')
    config = load_file(str(toml), socket=None)
    with monkeypatch.context() as patched:
        if os.geteuid() == 0:
            os.chown(tmp_path, 4242, 4242)
        else:
            patched.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
        told = f"{tmp_path}, where it would be made, belongs to uid .* make the folder first"
        with pytest.raises(ConfigError, match=told), stopped(config, "s", may_begin=True):
            pass
        with pytest.raises(DaemonUnreachableError), stopped(config, "s"):
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["k.toml"]
    os.chown(tmp_path, os.geteuid(), -1)
    with stopped(config, "s", may_begin=True):
        assert (tmp_path / "a/state").exists()


def test_an_export_is_on_the_disk_with_its_name_before_it_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    synced: list[str] = []
    failing: set[int] = set()
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        if len(synced) in failing:
            raise OSError(errno.EIO, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    path = str(tmp_path / "k.age")
    copies._write(path, b"an export")
    assert synced == [path, str(tmp_path)]
    for step in (1, 2):
        synced.clear()
        failing.clear()
        failing.add(step)
        Path(path).unlink(missing_ok=True)
        with pytest.raises(OutputError, match="nothing was exported"):
            copies._write(path, b"an export")
        assert not os.path.exists(path)


# Passphrases and identities


def test_a_passphrase_file_has_one_line(tmp_path: Path) -> None:
    for number, ending in enumerate(("", "\n", "\r\n")):
        path = private_file(tmp_path / str(number), "correct horse battery" + ending)
        assert secret_input.new_passphrase(path) == "correct horse battery"
        assert secret_input.known_passphrase(path) == "correct horse battery"
    for number, text in enumerate(("", "\n", "correct horse\nbattery staple\n")):
        with pytest.raises(UsageError, match="one line"):
            secret_input.known_passphrase(private_file(tmp_path / f"bad{number}", text))


def test_a_short_passphrase_opens_but_never_encrypts(tmp_path: Path) -> None:
    path = private_file(tmp_path / "p", "éleven char")
    assert secret_input.known_passphrase(path) == "éleven char"
    with pytest.raises(UsageError, match="fewer than 12"):
        secret_input.new_passphrase(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o602])
def test_a_secret_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = private_file(tmp_path / "p", "correct horse battery")
    os.chmod(path, mode)
    for read in (secret_input.new_passphrase, secret_input.known_passphrase, secret_input.identities):
        with pytest.raises(UsageError, match="chmod go="):
            read(path)


def test_a_passphrase_may_come_through_a_pipe() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"correct horse battery\n")
    os.close(writer)
    try:
        assert secret_input.new_passphrase(f"/dev/fd/{reader}") == "correct horse battery"
    finally:
        os.close(reader)


def test_no_secret_file_is_shown(tmp_path: Path) -> None:
    for text in ("AGE-SECRET-KEY-1BROKEN\n", "hunter2\n", f"{IDENTITY}x\n"):
        path = private_file(tmp_path / "i", text)
        with pytest.raises(UsageError) as caught:
            age.from_identities(secret_input.identities(path))
        assert text.strip() not in str(caught.value)


def test_an_identity_file_is_what_age_keygen_writes(tmp_path: Path) -> None:
    text = f"# created: 2026-11-24T04:00:00Z\n# public key: {RECIPIENT}\n{IDENTITY}\n"
    assert secret_input.identities(private_file(tmp_path / "i", text)) == [str(IDENTITY)]


# What is refused before anything is asked


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["purge", KEY_ID], "--yes-destroy"),
        (["export"], "--passphrase-file F or --recipient"),
        (["export", "--recipient", "age1x"], "age-keygen -y"),
        (["export", "--out", "/", "--recipient", RECIPIENT], "exists"),
        (["export", "--out", "/nonexistent/x", "--recipient", RECIPIENT], "no such folder"),
        (["export", "--passphrase-file", "/nonexistent/p"], "No such file"),
        (["import", "/nonexistent/x"], "No such file"),
        (["import", "/dev/zero"], "larger than any export"),
        (["create", "--tag", "team"], "must be K=V"),
        (["create", "--tag", "a=1", "--tag", "a=2"], "twice"),
        (["tag", KEY_ID, "=v"], "must be K=V"),
        (["list", "--config", "/nonexistent/k.toml"], "No such file"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_wrong_usage_is_told_in_a_line(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr("kpcache.worker.process.protect", lambda _name: None)
    monkeypatch.setenv("KPCACHE_SOCKET", "/nonexistent/kpcache.sock")
    assert main(["keyring", *argv]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert words in told.err
    assert told.err.count("\n") == 1


# What is shown


def shown(view: Any) -> str:
    stream = io.StringIO()
    console_for(stream).print(view)
    return stream.getvalue()


METADATA = {
    "KeyId": KEY_ID, "Arn": f"arn:aws:kms:local:000000000000:key/{KEY_ID}", "KeyState": "PendingDeletion",
    "CreationDate": 86400.0, "DeletionDate": 172800.0, "Description": "for \x1b[2J billing\nkey",
}  # fmt: skip
ALIASES = [
    {"AliasName": "alias/kpcache", "TargetKeyId": KEY_ID},
    {"AliasName": "alias/other", "TargetKeyId": "another"},
]


def test_the_tables_show_keys_and_obey_no_escape() -> None:
    table = shown(keys_table([METADATA], ALIASES))
    assert KEY_ID in table
    assert "1970-01-02 00:00 UTC" in table
    assert "alias/kpcache" in table
    assert "alias/other" not in table
    everything = {
        "KeyMetadata": METADATA,
        "Aliases": ALIASES[:1],
        "Tags": [{"TagKey": "team", "TagValue": "\x1b[31mred"}],
        "Rotations": [
            {"KeyMaterialId": "aa" * 32, "KeyMaterialState": "NON_CURRENT"},
            {"KeyMaterialId": "bb" * 32, "KeyMaterialState": "CURRENT", "RotationDate": 90000.0},
        ],
    }
    view = shown(key_view(everything))
    assert "not before 1970-01-03 00:00 UTC" in view
    assert r"team=\x1b[31mred" in view
    lines = [line.rstrip() for line in view.splitlines()]
    assert any("aa" * 32 in line and "1970-01-02 00:00" in line and line.endswith("open") for line in lines)
    assert any(
        "bb" * 32 in line and "1970-01-02 01:00" in line and "encrypt and open" in line for line in lines
    )
    assert "\x1b" not in table + view


def test_an_import_is_told_in_words() -> None:
    members = ("KeysAdded", "MaterialsAdded", "AliasesAdded", "AliasesKept")
    nothing: dict[str, list[str]] = {member: [] for member in members}
    assert import_in_words(nothing) == ["nothing added: all that the export has is here"]
    some = {
        **nothing,
        "KeysAdded": [KEY_ID],
        "AliasesAdded": ["alias/a", "alias/b"],
        "AliasesKept": ["alias/c"],
    }
    assert import_in_words(some) == [
        f"added keys: {KEY_ID}",
        "added aliases: alias/a, alias/b",
        "left as they are here, though they mean other keys in the export: alias/c",
    ]


def test_a_result_is_json_or_one_line_without_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(argparse.Namespace(json=True), {}, "key \x1b is enabled") == 0
    assert tell(argparse.Namespace(json=False), {}, "key \x1b is enabled") == 0
    assert capsys.readouterr().out == "{}\nkey \\x1b is enabled\n"


class Pages:
    """Answers a list in pages of one."""

    def call(self, method: str, members: Any) -> dict[str, Any]:
        assert method == "ListKeys"
        number = int(members.get("Marker", "0"))
        page: dict[str, Any] = {"Keys": [{"KeyId": str(number)}], "Truncated": number < 2}
        return page | ({"NextMarker": str(number + 1)} if number < 2 else {})


def test_a_list_is_taken_page_by_page_to_its_end() -> None:
    assert [key["KeyId"] for key in all_of(Pages(), "ListKeys", {}, "Keys")] == ["0", "1", "2"]
