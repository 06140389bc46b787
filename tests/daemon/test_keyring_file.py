"""The keyring's file: made once, durable before use, whole or absent after a kill, closed to others."""

import os
import shlex
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm

from kpcache.errors import ConfigError, InvalidCiphertextException
from kpcache.keyring import Keyring, changes, crypto
from kpcache.keyring.vault import Vault
from tests.keyrings import ALIAS, document_of, record
from tests.vaults import (
    FILE,
    MARK,
    OLD,
    PLAIN,
    PREVIOUS,
    TEMPORARY,
    open_keyring,
    open_vault,
    refusal,
    rotate,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder, with a space in its path and the daemon's lock in it."""
    made = tmp_path / "state folder"
    made.mkdir(mode=0o700)
    (made / "lock").touch()
    return made


@pytest.fixture
def kept(folder: Path) -> bytes:
    """A blob of the keyring that is in the folder already."""
    ring = open_keyring(folder)
    return ring.encrypt(ring.resolve(ALIAS), b"private", {}).blob


def test_a_first_start_makes_a_keyring_that_later_starts_read(folder: Path) -> None:
    ring = Keyring(open_vault(folder, now=lambda: 1700000000).content)
    key = ring.resolve(ALIAS)
    blob = ring.encrypt(key, b"private", {"app": "billing"}).blob
    again = open_keyring(folder, "never")
    assert again.resolve(key.arn) == key
    assert again.decrypt(blob, {"app": "billing"}).plaintext == b"private"
    assert again.describe(key)["CreationDate"] == 1700000000.0
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600
    assert sorted(os.listdir(folder)) == [FILE, MARK, "lock"]


def test_two_keyrings_share_nothing(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    [first], [second] = open_vault(folder).content.keys, open_vault(other).content.keys
    assert first.key_id != second.key_id
    assert first.materials[0].secret != second.materials[0].secret


def test_ids_and_secrets_come_from_the_urandom_given(folder: Path) -> None:
    drawn: list[bytes] = []

    def urandom(size: int) -> bytes:
        drawn.append(os.urandom(size))
        return drawn[-1]

    content = open_vault(folder, urandom=urandom).content
    [key] = content.keys
    assert [len(item) for item in drawn] == [16, 32, 32, 32]
    assert (content.tag_key, content.reserve_secret) == (drawn[2], drawn[3])
    assert crypto.material_id(drawn[1], key.key_id) == key.materials[0].material_id


@pytest.mark.parametrize("name", [TEMPORARY, OLD])
def test_a_left_over_temporary_does_not_count_as_state(folder: Path, name: str) -> None:
    (folder / name).write_text("half of a keyr")
    open_keyring(folder)
    assert sorted(os.listdir(folder)) == [FILE, MARK, "lock"]


def test_no_keyring_is_made_where_that_is_not_wanted(folder: Path) -> None:
    told = refusal(folder, "never")
    assert 'keyring.create is "never"' in told
    assert "restore keyring.json from its backup" in told
    assert os.listdir(folder) == ["lock"]


def test_no_keyring_is_made_beside_other_state(folder: Path) -> None:
    """The keyring was lost: a new one would hide it, and open nothing."""
    (folder / "ledger.db").touch()
    told = refusal(folder)
    assert "it holds ledger.db" in told
    assert "restore keyring.json from its backup" in told
    assert sorted(os.listdir(folder)) == ["ledger.db", "lock"]


@pytest.mark.parametrize("create", ["if_empty", "never"])
def test_a_keyring_that_was_lost_is_not_replaced(folder: Path, kept: bytes, create: str) -> None:
    backup = (folder / FILE).read_bytes()
    (folder / FILE).unlink()
    told = refusal(folder, create)
    assert "missing, yet it was made here" in told
    assert "restore keyring.json from its backup" in told
    assert sorted(os.listdir(folder)) == [MARK, "lock"]
    (folder / FILE).write_bytes(backup)
    (folder / FILE).chmod(0o600)
    assert open_keyring(folder, create).decrypt(kept, {}).plaintext == b"private"


def test_a_lost_keyring_is_given_up_by_the_command_that_is_told(folder: Path, kept: bytes) -> None:
    (folder / FILE).unlink()
    cure = refusal(folder).partition("run: ")[2]
    assert cure == f"rm {shlex.quote(str(folder / MARK))}"
    subprocess.run(["/bin/sh", "-c", cure], check=True)
    with pytest.raises(InvalidCiphertextException):
        open_keyring(folder).decrypt(kept, {})


@pytest.mark.usefixtures("kept")
def test_that_command_takes_the_state_before_the_last_change_with_it(folder: Path) -> None:
    """Else the next start would find the folder in use."""
    open_vault(folder).change(rotate)
    (folder / FILE).unlink()
    cure = refusal(folder).partition("run: ")[2]
    assert shlex.split(cure) == ["rm", str(folder / MARK), str(folder / PREVIOUS)]
    subprocess.run(["/bin/sh", "-c", cure], check=True)
    open_keyring(folder)


@pytest.mark.usefixtures("kept")
def test_a_keyring_from_before_there_were_marks_gets_one(folder: Path) -> None:
    (folder / MARK).unlink()
    open_keyring(folder, "never")
    (folder / FILE).unlink()
    assert "it was made here" in refusal(folder)


@pytest.mark.usefixtures("kept")
def test_only_a_keyring_that_can_be_read_is_marked(folder: Path) -> None:
    """A wrong file, put here by mistake and removed again, must not keep a first start away."""
    (folder / MARK).unlink()
    (folder / FILE).write_text("{}")
    refusal(folder)
    (folder / FILE).unlink()
    open_keyring(folder)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == f"{tmp_path / 'none'}: No such file or directory"


@pytest.mark.usefixtures("kept")
def test_a_damaged_keyring_is_neither_used_nor_replaced(folder: Path) -> None:
    damaged = (folder / FILE).read_bytes().replace(b"Enabled", b"Disable")
    (folder / FILE).write_bytes(damaged)
    told = refusal(folder)
    assert "its checksum does not match" in told
    assert "restore it from its backup, and do not delete it" in told
    assert (folder / FILE).read_bytes() == damaged


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("harm", [Path.unlink, lambda path: os.truncate(path, 99)], ids=["lost", "cut"])
def test_the_state_before_the_last_change_is_told_as_a_cure_where_it_is_there(
    folder: Path, harm: Callable[[Path], None]
) -> None:
    before = open_vault(folder).content
    open_vault(folder).change(lambda content: changes.disable(content, ALIAS))
    harm(folder / FILE)
    assert f"from its backup or from {PREVIOUS} beside it, the state before the last change" in refusal(
        folder
    )
    (folder / PREVIOUS).rename(folder / FILE)
    assert open_vault(folder, "never").content == before
    harm(folder / FILE)
    assert PREVIOUS not in refusal(folder)


@pytest.mark.usefixtures("kept")
def test_the_state_before_the_last_change_says_that_a_keyring_was_lost(folder: Path) -> None:
    (folder / FILE).rename(folder / PREVIOUS)
    (folder / MARK).unlink()
    assert f"it holds {PREVIOUS}" in refusal(folder)


def test_an_exported_keyring_goes_into_an_empty_folder(folder: Path) -> None:
    exported = document_of(record(materials=3), record(state="Disabled"))
    content = Vault.import_first(folder, exported, unlock=PLAIN).content
    assert (content.keys, content.aliases) == (exported.keys, exported.aliases)
    assert content.exported_revision == content.revision, "it came from an export"
    assert open_vault(folder, "never").content == content
    assert sorted(os.listdir(folder)) == [FILE, MARK, "lock"]


def _lost(folder: Path) -> None:
    (folder / FILE).unlink()


def _lost_without_a_mark(folder: Path) -> None:
    (folder / FILE).unlink()
    (folder / MARK).unlink()
    (folder / "ledger.db").touch()


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    ("lose", "told"),
    [
        (lambda _: None, "there is a keyring already"),
        (_lost, "missing, yet it was made here"),
        (_lost_without_a_mark, "it holds ledger.db"),
    ],
    ids=["there", "marked", "other state"],
)
def test_an_import_into_a_used_folder_is_refused_as_a_first_start_is(
    folder: Path, lose: Callable[[Path], None], told: str
) -> None:
    lose(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigError, match=told):
        Vault.import_first(folder, document_of(record()), unlock=PLAIN)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.usefixtures("kept")
def test_a_default_alias_that_the_keyring_lacks(folder: Path) -> None:
    assert refusal(folder, alias="alias/other").endswith("has no alias/other; its aliases: alias/kpcache")


@pytest.mark.parametrize("alias", ["kpcache", "alias/", "alias/aws/kms", "alias/a b", "alias/a\n"])
def test_a_default_alias_that_none_can_have(folder: Path, alias: str) -> None:
    assert "keyring.default_alias" in refusal(folder, alias=alias)


def test_an_openssl_without_gcm_siv_is_refused_with_the_cure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(_: bytes) -> None:
        raise UnsupportedAlgorithm("AES-GCM-SIV")

    monkeypatch.setattr(crypto, "AESGCMSIV", unsupported)
    assert "pip install --force-reinstall --only-binary cryptography cryptography" in refusal(folder)
    assert os.listdir(folder) == ["lock"]


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("mode", [0o601, 0o602, 0o604, 0o610, 0o620, 0o640, 0o660])
def test_a_file_open_to_others_is_refused_until_the_cure_is_run(folder: Path, mode: int) -> None:
    (folder / FILE).chmod(mode)
    told = refusal(folder)
    assert f"mode 0{mode:o} lets other users in" in told
    cure = told.partition("run: ")[2]
    assert cure == f"chmod 600 {shlex.quote(str(folder / FILE))}"
    subprocess.run(["/bin/sh", "-c", cure], check=True)
    open_keyring(folder)


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_a_folder_in_which_others_could_replace_the_file_is_refused(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    told = refusal(folder)
    assert told.endswith(f"run: chmod go-w {shlex.quote(str(folder))}")
    subprocess.run(["/bin/sh", "-c", told.partition("run: ")[2]], check=True)
    open_keyring(folder)


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    ("owner", "us", "accepted"), [(4242, 4243, False), (4242, 0, False), (0, 4243, True)]
)
def test_the_owner_must_be_us_or_root(
    folder: Path, monkeypatch: pytest.MonkeyPatch, owner: int, us: int, accepted: bool
) -> None:
    fstat = os.fstat

    def owned(fd: int) -> os.stat_result:
        fields: list[Any] = list(fstat(fd))
        fields[stat.ST_UID] = owner if stat.S_ISREG(fields[stat.ST_MODE]) else us
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", owned)
    monkeypatch.setattr(os, "geteuid", lambda: us)
    if accepted:
        open_keyring(folder)
    else:
        cure = f"owned by uid {owner}, neither ours ({us}) nor root; run as root: chown {us} "
        assert cure + shlex.quote(str(folder / FILE)) in refusal(folder)


@pytest.mark.usefixtures("kept")
def test_a_file_that_we_may_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made up, since root may read everything."""
    real_open = os.open

    def denied(path: Any, *args: Any, **kwargs: Any) -> int:
        if path == FILE:
            raise PermissionError(13, "Permission denied")
        return real_open(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", denied)
    quoted = shlex.quote(str(folder / FILE))
    assert refusal(folder).endswith(f"run as root: chown {os.geteuid()} {quoted} && chmod 600 {quoted}")


def _link(path: Path) -> None:
    path.rename(path.parent / "lock")
    path.symlink_to(path.parent / "lock")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir(0o600)


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    ("replace", "told"),
    [(_link, "is a symbolic link"), (_pipe, "is not a regular file"), (_folder, "is not a regular file")],
)
def test_only_a_regular_file_is_read(folder: Path, replace: Callable[[Path], None], told: str) -> None:
    replace(folder / FILE)
    assert told in refusal(folder)
