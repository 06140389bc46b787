"""Changes of the keyring: durable and whole or refused, and never over another hand's work."""

import dataclasses
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kpcache.core.admin_operations import MAX_DOCUMENT_BYTES, MAX_KEYRING_BYTES
from kpcache.core.contract import validate
from kpcache.daemon.administrator import MAX_MESSAGE_BYTES
from kpcache.errors import (
    AlreadyExistsException,
    ConfigError,
    KeyUnavailableException,
    LimitExceededException,
)
from kpcache.keyring import changes, document
from kpcache.keyring.document import Document
from kpcache.keyring.merge import merge
from kpcache.keyring.size import held_bytes
from kpcache.keyring.vault import Sight, Vault
from tests.keyrings import ALIAS, document_of, record
from tests.vaults import FILE, MARK, PLAIN, PREVIOUS, open_vault, purge, refusal, rotate, used_vault


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def vault(folder: Path) -> Vault:
    return used_vault(folder)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_change_is_in_the_file_when_it_returns(vault: Vault, folder: Path) -> None:
    changed = vault.change(rotate)
    assert changed is vault.content
    assert document.decode((folder / FILE).read_bytes()) == changed
    assert sorted(os.listdir(folder)) == [FILE, PREVIOUS, MARK]
    assert {(folder / name).stat().st_mode & 0o777 for name in (FILE, PREVIOUS)} == {0o600}


def test_each_change_builds_on_the_one_before(vault: Vault, folder: Path) -> None:
    for n in range(5):
        vault.change(lambda content, n=n: changes.create_alias(content, f"alias/{n}", ALIAS))  # type: ignore[misc]
    assert len(open_vault(folder).content.aliases) == 6


def test_what_kms_refuses_leaves_everything_as_it_was(vault: Vault, folder: Path) -> None:
    before, content = files(folder), vault.content
    with pytest.raises(AlreadyExistsException):
        vault.change(lambda c: changes.create_alias(c, ALIAS, ALIAS))
    assert files(folder) == before
    assert vault.content is content


def test_a_change_that_changes_nothing_writes_nothing(vault: Vault, folder: Path) -> None:
    """Else the state before the last change would go for it."""
    before = files(folder)
    assert vault.change(lambda c: changes.enable(c, ALIAS)) is vault.content
    assert files(folder) == before


def test_an_export_is_remembered_though_the_revision_stays(vault: Vault, folder: Path) -> None:
    revision = vault.content.revision
    vault.change(lambda c: changes.mark_exported(c, revision))
    assert open_vault(folder).content.exported_revision == revision


def test_the_mark_of_an_export_leaves_the_state_before_the_last_change(vault: Vault, folder: Path) -> None:
    before = (folder / FILE).read_bytes()
    vault.change(rotate)
    vault.change(lambda c: changes.mark_exported(c, c.revision))
    assert (folder / PREVIOUS).read_bytes() == before


def _another_version(folder: Path) -> None:
    shutil.copy(folder / PREVIOUS, folder / FILE)


def _another_keyring(folder: Path) -> None:
    (folder / FILE).write_bytes(document.encode(document_of(record())))


def _damaged(folder: Path) -> None:
    os.truncate(folder / FILE, 100)


@pytest.mark.parametrize("touch", [_another_version, _another_keyring, _damaged])
@pytest.mark.parametrize("change", [rotate, purge])
def test_nothing_is_written_over_another_hands_work(
    vault: Vault, folder: Path, touch: Callable[[Path], None], change: Callable[[Document], Document]
) -> None:
    content = vault.content
    touch(folder)
    before = files(folder)
    with pytest.raises(KeyUnavailableException) as caught:
        vault.change(change, destroys=change is purge)
    assert f"{folder / FILE}: changed by another hand" in caught.value.message
    assert "stop the daemon first" in caught.value.message
    assert files(folder) == before
    assert vault.content is content


def test_a_file_that_was_removed_is_told_and_not_made_again(vault: Vault, folder: Path) -> None:
    kept = (folder / FILE).rename(folder.parent / "kept")
    with pytest.raises(KeyUnavailableException, match=r"removed by another hand.*kpcache keyring export"):
        vault.change(rotate)
    assert not (folder / FILE).exists()
    kept.rename(folder / FILE)
    vault.change(rotate)


def test_a_file_that_was_opened_to_others_is_told_with_the_cure(vault: Vault, folder: Path) -> None:
    (folder / FILE).chmod(0o644)
    with pytest.raises(KeyUnavailableException, match="run: chmod 600"):
        vault.change(rotate)
    (folder / FILE).chmod(0o600)
    vault.change(rotate)


def _filled(content: Document, size: int) -> Document:
    """``content`` and as many more keys, with long descriptions, as hold ``size`` bytes."""

    def filled(count: int, last: int) -> Document:
        texts = ["d" * 8192] * (count - 1) + ["d" * last]
        more = (dataclasses.replace(record(), description=text) for text in texts)
        return dataclasses.replace(content, keys=(*content.keys, *more), revision=99)

    [one, two] = (held_bytes(filled(count, 0)) for count in (1, 2))
    count, last = divmod(size - one, two - one)
    assert last <= 8192, "another size can be met exactly"
    return filled(count + 1, last)


def test_a_keyring_has_a_largest_size(vault: Vault, folder: Path) -> None:
    largest = _filled(vault.content, MAX_KEYRING_BYTES)
    vault.change(lambda _: largest)
    assert held_bytes(vault.content) == MAX_KEYRING_BYTES
    before, key_id = (folder / FILE).stat().st_ino, largest.keys[0].key_id
    with pytest.raises(LimitExceededException):
        vault.change(lambda c: changes.describe_as(c, key_id, largest.keys[0].description + "d"))
    assert (folder / FILE).stat().st_ino == before
    assert open_vault(folder).content == vault.content


def test_the_largest_keyring_can_still_be_calmed_counted_and_made_smaller(vault: Vault, folder: Path) -> None:
    doomed = changes.create_alias(vault.content, "alias/more", ALIAS)
    largest = _filled(doomed, MAX_KEYRING_BYTES)
    vault.change(lambda _: largest)
    vault.change(lambda c: changes.cancel_deletion(c, c.keys[1].key_id))
    for key in largest.keys[2:22]:
        vault.change(lambda c, key=key: changes.schedule_deletion(c, key.key_id, 30, 1.7e9))  # type: ignore[misc]
    vault.change(lambda c: changes.mark_exported(c, c.revision))
    assert (folder / FILE).stat().st_size > MAX_KEYRING_BYTES
    with pytest.raises(LimitExceededException):
        vault.change(lambda c: changes.create_alias(c, "alias/yet/more", c.keys[1].key_id))
    vault.change(lambda c: changes.delete_alias(c, "alias/more"))
    assert (folder / FILE).stat().st_size > MAX_KEYRING_BYTES
    assert open_vault(folder).content == vault.content


def test_a_fault_of_the_file_is_found_without_a_change(vault: Vault, folder: Path) -> None:
    assert vault.look() == Sight()
    kept = folder.rename(folder.parent / "away")
    gone = vault.look()
    assert str(folder) in gone.fault
    assert (gone.is_lost, gone.is_to_mend) == (True, True)
    folder.mkdir(mode=0o700)
    gone = vault.look()
    assert "removed by another hand" in gone.fault
    assert (gone.is_lost, gone.is_to_mend) == (True, True)
    folder.rmdir()
    kept.rename(folder)
    assert vault.look() == Sight()


@pytest.mark.parametrize("touch", [_another_version, _another_keyring, _damaged])
def test_another_file_than_the_one_in_use_is_a_loss(
    vault: Vault, folder: Path, touch: Callable[[Path], None]
) -> None:
    touch(folder)
    assert "changed by another hand" in vault.look().fault
    assert (vault.look().is_lost, vault.look().is_to_mend) == (True, False)


def test_a_file_that_others_may_read_is_a_fault_and_no_loss(vault: Vault, folder: Path) -> None:
    (folder / FILE).chmod(0o640)
    assert "run: chmod 600" in vault.look().fault
    assert not vault.look().is_lost


def test_a_look_writes_nothing_and_syncs_nothing(
    vault: Vault, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must be possible to give it up where the disk hangs, and a failed sync is told to one only."""
    (folder / MARK).unlink()
    before = files(folder)
    for name in ("fsync", "write", "rename", "unlink", "link"):
        monkeypatch.setattr(os, name, lambda *_, **__: pytest.fail("a look does more than look"))
    assert vault.look() == Sight(is_to_mend=True)
    assert files(folder) == before


@pytest.mark.parametrize("lose", ["folder", "mount", "mark"])
def test_what_tells_the_next_start_of_a_loss_is_made_again(vault: Vault, folder: Path, lose: str) -> None:
    """A folder that vanishes as a whole, or a mount that is missing, would look like a first start."""
    if lose == "mark":
        (folder / MARK).unlink()
    else:
        shutil.rmtree(folder)
    if lose == "mount":
        folder.mkdir(mode=0o700)
    assert vault.mend() == ""
    assert folder.stat().st_mode & 0o777 == 0o700
    assert vault.look().is_lost is (lose != "mark")
    assert not vault.look().is_to_mend
    (folder / FILE).unlink(missing_ok=True)
    (folder / PREVIOUS).unlink(missing_ok=True)
    assert "missing, yet it was made here" in refusal(folder)


def test_what_cannot_be_made_again_is_told(vault: Vault, folder: Path) -> None:
    shutil.rmtree(folder)
    folder.touch()
    assert str(folder) in vault.mend()
    assert vault.look().is_lost


def test_a_change_in_doubt_is_settled_without_another_change(
    vault: Vault, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, real_rename, real_fsync = rotate(vault.content), os.rename, os.fsync

    def rename(*args: Any, **kwargs: Any) -> None:
        real_rename(*args, **kwargs)
        if args[1] == FILE:
            monkeypatch.setattr(os, "fsync", broken)

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(KeyUnavailableException, match="whether the change stands is not known"):
        vault.change(rotate)
    assert vault.look() == Sight(is_to_mend=True)
    assert "Input/output error" in vault.mend()
    monkeypatch.setattr(os, "fsync", real_fsync)
    monkeypatch.setattr(os, "rename", real_rename)
    assert vault.content != new
    assert vault.mend() == ""
    assert vault.content == new
    assert vault.look() == Sight()
    assert open_vault(folder).content == new


def test_an_export_of_the_largest_keyring_can_be_imported_whatever_became_of_its_keys(
    vault: Vault, tmp_path: Path
) -> None:
    """With as many keys as fit, since what a state and a date add is counted for none of them."""
    content = vault.content
    each = held_bytes(dataclasses.replace(content, keys=(*content.keys, record()))) - held_bytes(content)
    count = (MAX_KEYRING_BYTES - held_bytes(content)) // each
    dates = [1.7e9 + number / 7 for number in range(count)]
    dying = [record(state="PendingDeletion", deletion_s=date) for date in dates]
    calm = [dataclasses.replace(key, state="Enabled", deletion_s=None) for key in dying]
    vault.change(lambda c: dataclasses.replace(c, keys=(*c.keys, *calm), revision=2**40))
    with pytest.raises(LimitExceededException):
        vault.change(lambda c: dataclasses.replace(c, keys=(*c.keys, record())))
    vault.change(lambda c: dataclasses.replace(c, keys=(*c.keys[:2], *dying), revision=2**41))
    exported = document.encode(vault.content)
    assert MAX_KEYRING_BYTES * 1.05 < len(exported) < MAX_DOCUMENT_BYTES
    assert len(exported) < MAX_MESSAGE_BYTES - 1000
    validate("kpcache.ImportKeyring", {"KeyringDocument": exported})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    imported = Vault.import_first(elsewhere, document.decode(exported), unlock=PLAIN)
    assert imported.content.keys == vault.content.keys
    imported.change(lambda c: changes.cancel_deletion(c, c.keys[-1].key_id))
    assert imported.change(lambda c: merge(c, document.decode(exported))[0]) == imported.content
    assert open_vault(elsewhere).content == imported.content


def test_a_revision_that_leaves_no_room_for_changes_is_not_imported(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    exported = dataclasses.replace(document_of(record()), revision=2**53)
    assert document.decode(document.encode(exported)) == exported
    with pytest.raises(ConfigError, match="made by hand"):
        Vault.import_first(tmp_path, exported, unlock=PLAIN)
    assert os.listdir(tmp_path) == []


def test_an_import_has_the_same_largest_size(tmp_path: Path) -> None:
    too_large = _filled(document_of(record()), MAX_KEYRING_BYTES + 1)
    tmp_path.chmod(0o700)
    with pytest.raises(LimitExceededException):
        Vault.import_first(tmp_path, too_large, unlock=PLAIN)
    assert os.listdir(tmp_path) == []
