"""The first write of the keyring, stopped and failed at every step, and the order of its steps."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kpcache.errors import ConfigError
from kpcache.keyring import Keyring

ALIAS = "alias/kpcache"
FILE, TEMPORARY, MARK = "keyring.json", "keyring.json.new", "keyring.made"

# Each child works in a folder of its own and ends without a word at its n-th system call on files,
# until one gets to its end. Writes are cut short, so that kills fall between the parts too.
KILL_AT_EACH_STEP = """
import os, sys
from pathlib import Path
from kpcache.keyring import Keyring

base, step, status = Path(sys.argv[1]), 0, 9
while status != 0:
    step += 1
    folder = base / f"{step:03}"
    folder.mkdir(mode=0o700)
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
    os.write = lambda fd, data: real_write(fd, data[:200])
    for name in ("open", "write", "fsync", "rename", "unlink", "close"):
        setattr(os, name, dying(getattr(os, name)))
    Keyring.open(folder, create="if_empty", default_alias="alias/kpcache")
    real_exit(0)
"""


def open_keyring(folder: Path, create: Any = "if_empty") -> Keyring:
    return Keyring.open(folder, create=create, default_alias=ALIAS)


class Calls:
    """Stands before ``os``: notes the calls that make a file durable, and fails one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failing: int | None = None) -> None:
        self.made: list[str] = []
        self._failing = failing
        for name in ("write", "fsync", "rename"):
            monkeypatch.setattr(os, name, self._noting(name, getattr(os, name)))

    def _noting(self, name: str, call: Any) -> Any:
        def noting(*args: Any, **kwargs: Any) -> Any:
            on = args[0] if name == "rename" else Path(os.readlink(f"/proc/self/fd/{args[0]}")).name
            self.made.append(f"{name} {on}")
            if len(self.made) == self._failing:
                raise OSError(errno.ENOSPC, "No space left on device")
            return call(*args, **kwargs)

        return noting


WRITE = [f"write {TEMPORARY}", f"fsync {TEMPORARY}", f"rename {TEMPORARY}", "fsync state"]
READ = [f"fsync {FILE}", "fsync state"]
# The last thing: a mark without a keyring would keep every start away.
MARKED = [f"write {MARK}", f"fsync {MARK}", "fsync state"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


def test_all_is_durable_in_order_before_open_returns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    open_keyring(folder)
    assert calls.made == WRITE + READ + MARKED


def test_a_keyring_that_is_found_is_made_durable_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its writer may have been killed between rename and sync."""
    open_keyring(folder)
    calls = Calls(monkeypatch)
    open_keyring(folder)
    assert calls.made == READ


@pytest.mark.parametrize("step", range(1, len(WRITE + READ + MARKED) + 1))
def test_a_step_that_fails_leaves_nothing_or_a_whole_keyring(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    with monkeypatch.context() as patched:
        Calls(patched, failing=step)
        with pytest.raises(ConfigError, match="No space left on device") as caught:
            open_keyring(folder)
    assert str(folder) in caught.value.message
    whole = step > WRITE.index(f"rename {TEMPORARY}") + 1
    marked = step > len(WRITE + READ)
    assert sorted(os.listdir(folder)) == [FILE] * whole + [MARK] * marked
    open_keyring(folder, "never" if whole else "if_empty")


def test_a_kill_at_any_step_leaves_nothing_or_a_whole_keyring(folder: Path) -> None:
    command = [sys.executable, "-c", KILL_AT_EACH_STEP, str(folder)]
    subprocess.run(command, check=True, timeout=60)
    left: list[bool] = []
    for each in sorted(folder.iterdir()):
        whole = (each / FILE).exists()
        left.append(whole)
        assert whole or not (each / MARK).exists()
        ring = open_keyring(each, "never" if whole else "if_empty")
        blob = ring.encrypt(ring.resolve(ALIAS), b"private", {})
        assert open_keyring(each, "never").decrypt(blob, {}).plaintext == b"private"
        assert set(os.listdir(each)) <= {FILE, TEMPORARY, MARK}
    assert left == sorted(left), "once whole, always whole"
    assert left.count(False) >= 8
    assert left.count(True) >= 8
