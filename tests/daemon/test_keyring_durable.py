"""The writes of the keyring's file, stopped and failed at every step, and the order of their steps."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kpcache.errors import ConfigError, KeyUnavailableException
from kpcache.keyring import document
from kpcache.keyring.document import Document
from kpcache.keyring.vault import Vault
from tests.keyrings import ALIAS
from tests.vaults import (
    FILE,
    MARK,
    OLD,
    PREVIOUS,
    TEMPORARY,
    holds_a_secret,
    open_keyring,
    open_vault,
    purge,
    rotate,
    used_vault,
)

ROOT = Path(__file__).parents[2]

# Each child works in a folder of its own and ends without a word at its n-th system call on files,
# until one gets to its end. Writes are cut short, so that kills fall between the parts too.
KILL_AT_EACH_STEP = """
import os, sys
from pathlib import Path
from tests import vaults

base, kind, step, status = Path(sys.argv[1]), sys.argv[2], 0, 9
while status != 0:
    step += 1
    folder = base / f"{step:03}"
    folder.mkdir(mode=0o700)
    vault = None if kind == "first" else vaults.used_vault(folder)
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, 9), status
        continue
    left, real_exit = [step], os._exit

    def dying(call):
        def counted(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                real_exit(9)
            return call(*args, **kwargs)
        return counted

    real_write = os.write
    os.write = lambda fd, data: real_write(fd, data[:900])
    for name in ("open", "read", "write", "fsync", "rename", "link", "unlink", "close"):
        setattr(os, name, dying(getattr(os, name)))
    if vault is None:
        vaults.open_vault(folder)
    else:
        vault.change(getattr(vaults, kind), destroys=kind == "purge")
    real_exit(0)
"""


class Calls:
    """Stands before ``os``: notes the calls that change files or make them durable, and fails some."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        failing: int | None = None,
        reason: int = errno.ENOSPC,
        *,
        for_good: bool = False,
    ) -> None:
        """Call number ``failing`` fails, counted from 1; ``for_good``: all that follow too."""
        self.made: list[str] = []
        self._failing = range(0) if failing is None else range(failing, 9999 if for_good else failing + 1)
        self._reason = reason
        for name in ("write", "fsync", "rename", "link", "unlink"):
            monkeypatch.setattr(os, name, self._noting(name, getattr(os, name)))

    def _noting(self, name: str, call: Any) -> Any:
        def noting(*args: Any, **kwargs: Any) -> Any:
            on = args[0] if isinstance(args[0], str) else Path(os.readlink(f"/proc/self/fd/{args[0]}")).name
            self.made.append(f"{name} {on}" + (f" to {args[1]}" if name in ("rename", "link") else ""))
            if len(self.made) in self._failing:
                raise OSError(self._reason, os.strerror(self._reason))
            return call(*args, **kwargs)

        return noting


CLEAN = [f"unlink {TEMPORARY}", f"unlink {OLD}"]
NEW = [f"write {TEMPORARY}", f"fsync {TEMPORARY}"]
KEEP = [f"link {FILE} to {OLD}", f"rename {OLD} to {PREVIOUS}", f"unlink {OLD}"]
IN_FORCE = [f"rename {TEMPORARY} to {FILE}", "fsync state"]
READ = [f"fsync {FILE}", "fsync state"]
AGAIN = CLEAN + NEW + IN_FORCE
# The last thing: a mark without a keyring would keep every start away.
MARKED = [f"write {MARK}", f"fsync {MARK}", "fsync state"]
FIRST = CLEAN + NEW + KEEP[:1] + IN_FORCE + READ + MARKED
CHANGE = READ + CLEAN + NEW + KEEP + IN_FORCE
# All the space is taken before anything goes. The copy of the old state goes, durably, before the new state
# comes, which so never stands beside what it destroys; nor does the old one beside a copy that lacks a key.
DESTROY = (
    READ + CLEAN + NEW + [f"unlink {PREVIOUS}", "fsync state"] + IN_FORCE
    + [f"link {FILE} to {PREVIOUS}", "fsync state"]
)  # fmt: skip
# After a sync that failed: the kernel tells of it once, so the file is written anew, and no copy is moved.
ANEW = {"rotate": READ + AGAIN, "purge": DESTROY}
# The step after which a change is durable; what a change that destroys does behind it can fail.
LAST = {"rotate": len(CHANGE), "purge": len(DESTROY) - 2}

Change = Callable[[Document], Document]
KINDS = pytest.mark.parametrize(
    ("change", "steps"), [(rotate, CHANGE), (purge, DESTROY)], ids=["keeps", "destroys"]
)
STEPS = pytest.mark.parametrize(
    ("change", "step"),
    [
        (change, step)
        for change, all_ in ((rotate, CHANGE), (purge, DESTROY))
        for step in range(1, len(all_) + 1)
    ],
)
REASONS = pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


def apply(vault: Vault, change: Change) -> Document:
    return vault.change(change, destroys=change is purge)


def assert_no_lesser_copy(folder: Path, content: Document, *, but_for: Change = rotate) -> None:
    """Else a cure would recommend a copy that lacks a key, or once more shows one that was destroyed."""
    if (folder / PREVIOUS).exists():
        kept = document.decode((folder / PREVIOUS).read_bytes())
        assert [key.key_id for key in kept.keys] == [key.key_id for key in content.keys]
    elif but_for is rotate:
        raise AssertionError("a change that destroys nothing takes no copy away")


# --- the order


def test_all_is_durable_in_order_before_open_returns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    open_vault(folder)
    assert calls.made == FIRST


def test_a_keyring_that_is_found_is_made_durable_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its writer may have been killed between rename and sync, or have been told of a sync that failed: the
    kernel tells that once, so the file is written anew."""
    open_vault(folder)
    calls = Calls(monkeypatch)
    open_vault(folder)
    assert calls.made == READ + AGAIN


@KINDS
def test_all_is_durable_in_order_before_a_change_returns(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: Change, steps: list[str]
) -> None:
    vault = used_vault(folder)
    calls = Calls(monkeypatch)
    apply(vault, change)
    assert calls.made == steps


def test_the_previous_file_is_the_state_before_the_last_change(folder: Path) -> None:
    vault = used_vault(folder)
    before = (folder / FILE).read_bytes()
    apply(vault, rotate)
    assert (folder / PREVIOUS).read_bytes() == before
    assert (folder / PREVIOUS).stat().st_nlink == (folder / FILE).stat().st_nlink == 1


def test_no_copy_holds_what_was_destroyed(folder: Path) -> None:
    vault = used_vault(folder)
    old = vault.content
    (folder / TEMPORARY).write_bytes((folder / FILE).read_bytes())  # as writers leave that were killed
    (folder / OLD).write_bytes((folder / FILE).read_bytes())
    assert holds_a_secret(folder, old) == [FILE, TEMPORARY, OLD, PREVIOUS]
    apply(vault, purge)
    assert holds_a_secret(folder, old) == []
    assert (folder / PREVIOUS).read_bytes() == (folder / FILE).read_bytes()


def test_a_writer_killed_before_its_last_step_does_not_keep_the_next_from_its_work(folder: Path) -> None:
    """It leaves two names of one file, which rename(2) does not touch."""
    vault = used_vault(folder)
    (folder / PREVIOUS).unlink()
    os.link(folder / FILE, folder / PREVIOUS)
    apply(vault, rotate)
    assert sorted(os.listdir(folder)) == [FILE, PREVIOUS, MARK]
    assert (folder / PREVIOUS).read_bytes() != (folder / FILE).read_bytes()


# --- steps that fail


@pytest.mark.parametrize("step", [n for n, call in enumerate(FIRST, 1) if not call.startswith("link")])
def test_a_step_that_fails_leaves_nothing_or_a_whole_keyring(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    with monkeypatch.context() as patched:
        Calls(patched, failing=step)
        with pytest.raises(ConfigError, match="No space left on device; free some space there") as caught:
            open_vault(folder)
    assert str(folder) in caught.value.message
    whole = step > FIRST.index(f"rename {TEMPORARY} to {FILE}") + 1
    marked = step > FIRST.index(f"write {MARK}")
    assert sorted(os.listdir(folder)) == [FILE] * whole + [MARK] * marked
    open_vault(folder, "never" if whole else "if_empty")


def test_a_first_keyring_whose_last_sync_failed_is_written_once_more_before_it_is_marked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        Calls(patched, failing=len(FIRST) - len(READ + MARKED), reason=errno.EIO)
        with pytest.raises(ConfigError):
            open_vault(folder)
    assert os.listdir(folder) == [FILE]
    calls = Calls(monkeypatch)
    open_vault(folder)
    assert calls.made == READ + AGAIN + MARKED


def test_a_change_that_was_never_known_to_be_durable_is_written_once_more_by_the_next_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = used_vault(folder)
    new = rotate(vault.content)
    with monkeypatch.context() as patched:
        Calls(patched, failing=len(CHANGE), reason=errno.EIO, for_good=True)
        with pytest.raises(KeyUnavailableException):
            apply(vault, rotate)
    calls = Calls(monkeypatch)
    assert open_vault(folder).content == new
    assert calls.made == READ + AGAIN


BEFORE_IT_COUNTS = len(READ + AGAIN) - 1


@pytest.mark.parametrize("step", range(len(READ) + 1, len(READ + AGAIN) + 1))
@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_start_goes_on_where_a_disk_that_is_full_takes_nothing_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: int, reason: int
) -> None:
    """Its keyring was read, and is as good as it was. What fails once the new file is there is told."""
    content = used_vault(folder).content
    before = (folder / FILE).read_bytes()
    caplog.clear()
    with monkeypatch.context() as patched:
        Calls(patched, failing=step, reason=reason)
        if reason == errno.EIO or step > BEFORE_IT_COUNTS:
            with pytest.raises(ConfigError, match=os.strerror(reason)):
                open_vault(folder)
        else:
            assert open_vault(folder).content == content
            [line] = caplog.messages
            assert f"{folder / FILE}: {os.strerror(reason)}" in line
            assert "could not be written once more" in line
    assert (folder / FILE).read_bytes() == before
    assert sorted(os.listdir(folder)) == [FILE, PREVIOUS, MARK]


@REASONS
@STEPS
def test_a_change_whose_step_fails_is_made_whole_or_not_at_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: Change, step: int, reason: int
) -> None:
    vault = used_vault(folder)
    old, new = vault.content, change(vault.content)
    with monkeypatch.context() as patched:
        calls = Calls(patched, failing=step, reason=reason)
        if step >= LAST[change.__name__]:
            assert apply(vault, change) == new
            if step == LAST[change.__name__]:
                assert calls.made[step:] == ANEW[change.__name__], "the sync failed: it was written once more"
        else:
            with pytest.raises(KeyUnavailableException, match=os.strerror(reason)) as caught:
                apply(vault, change)
            assert str(folder / FILE) in caught.value.message
            assert vault.content == old
    assert_no_lesser_copy(folder, vault.content, but_for=change)
    if change is purge and step <= DESTROY.index(f"unlink {PREVIOUS}") + 1:
        assert (folder / PREVIOUS).exists(), "what failed before anything was removed has removed nothing"
    assert open_vault(folder, "never").content == vault.content
    assert set(os.listdir(folder)) - {PREVIOUS} == {FILE, MARK}
    assert apply(vault, change if vault.content == old else lambda content: content) == new


@STEPS
def test_a_disk_that_fails_for_good_leaves_the_old_or_the_new_state(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: Change, step: int
) -> None:
    """Then which one it is, is not known here; the next change finds out."""
    vault = used_vault(folder)
    old, new = vault.content, change(vault.content)
    with monkeypatch.context() as patched:
        Calls(patched, failing=step, reason=errno.EIO, for_good=True)
        if step > LAST[change.__name__]:
            assert apply(vault, change) == new
        else:
            with pytest.raises(KeyUnavailableException, match="the kernel's log may say"):
                apply(vault, change)
            assert vault.content == old, "what may be lost is not used"
    last = step >= LAST[change.__name__]
    assert vault.change(lambda content: content) == (new if last else old)
    assert open_vault(folder, "never").content == vault.content
    if last and change is purge:
        assert holds_a_secret(folder, old) == []


def test_a_change_that_was_not_confirmed_is_not_lost_on_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = used_vault(folder)
    with monkeypatch.context() as patched:
        Calls(patched, failing=len(CHANGE), reason=errno.EIO, for_good=True)
        with pytest.raises(KeyUnavailableException, match="whether the change stands is not known"):
            apply(vault, rotate)
    rotated = rotate(vault.content).keys[0].materials
    apply(vault, purge)
    [key] = open_vault(folder, "never").content.keys
    assert key.materials == rotated


# --- kills


def killed_at_each_step(folder: Path, kind: str) -> list[Path]:
    """What is left of writers of which each got one system call farther than the one before."""
    command = [sys.executable, "-c", KILL_AT_EACH_STEP, str(folder), kind]
    subprocess.run(command, check=True, timeout=60, cwd=ROOT)
    return sorted(folder.iterdir())


def test_a_kill_at_any_step_leaves_nothing_or_a_whole_keyring(folder: Path) -> None:
    left: list[bool] = []
    for each in killed_at_each_step(folder, "first"):
        whole = (each / FILE).exists()
        left.append(whole)
        assert whole or not (each / MARK).exists()
        ring = open_keyring(each, "never" if whole else "if_empty")
        blob = ring.encrypt(ring.resolve(ALIAS), b"private", {}).blob
        assert open_keyring(each, "never").decrypt(blob, {}).plaintext == b"private"
        assert set(os.listdir(each)) <= {FILE, TEMPORARY, MARK}
    assert left == sorted(left), "once whole, always whole"
    assert left.count(False) >= 8
    assert left.count(True) >= 8


@pytest.mark.parametrize("change", [rotate, purge])
def test_a_kill_at_any_step_of_a_change_leaves_the_old_or_the_new_state(folder: Path, change: Change) -> None:
    changed: list[bool] = []
    copies: set[tuple[bool, bool]] = set()
    for each in killed_at_each_step(folder, change.__name__):
        vault = open_vault(each, "never")
        is_old = len(vault.content.keys) == 2 and len(vault.content.keys[0].materials) == 1
        changed.append(not is_old)
        copies.add((is_old, (each / PREVIOUS).exists()))
        assert_no_lesser_copy(each, vault.content, but_for=change)
        if is_old:
            old = vault.content
            assert old.keys[1].deletion_s is not None
            new = apply(vault, change)
        else:
            new = vault.content
            assert change is rotate or holds_a_secret(each, old) == []
            vault.change(lambda content: content)
        assert new.revision == old.revision + 1
        assert open_vault(each, "never").content == new
        assert set(os.listdir(each)) <= {FILE, PREVIOUS, MARK, *([] if is_old else [TEMPORARY, OLD])}
    assert changed == sorted(changed), "once changed, always changed"
    assert changed.count(False) >= 15
    assert changed.count(True) >= 3
    if change is purge:
        assert len(copies) == 4, "each of the two states was met with its copy and without one"
