"""``kpcache keyring`` while no daemon runs: what works on its keyring, and what keeps two writers apart."""

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyrage
import pytest

from tests.system.fake_server import FakeServer
from tests.system.harness import pools, running
from tests.system.keyring_commands import answer, keyring, said

# No pool: a start is quick.
CONFIG = pools()
ARN = "arn:aws:kms:local:000000000000:"


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder that a daemon has left, and what ``list`` and ``describe`` said while it ran."""
    folder = tmp_path_factory.mktemp("rest")
    with running(folder, CONFIG):
        answer(folder, "create", "--alias", "alias/app", "--tag", "a=b")
        answer(folder, "rotate", "alias/app")
        told = {command: answer(folder, *command.split()) for command in ("list", "describe alias/app")}
    return folder, told


def test_keys_are_shown_as_by_the_daemon(rest: tuple[Path, dict[str, Any]]) -> None:
    folder, told = rest
    for command, before in told.items():
        assert answer(folder, *command.split()) == before
    assert "alias/app" in said(folder, "list")
    gone = keyring(folder, "describe", "alias/gone")
    assert (gone.returncode, gone.stderr) == (
        1,
        f"kpcache: NotFoundException: Alias {ARN}alias/gone is not found. "
        "(the keys that there are: kpcache keyring list)\n",
    )  # fmt: skip


CHANGES = [
    ["create"], ["alias", "create", "alias/a", "k"], ["alias", "move", "alias/a", "k"],
    ["alias", "delete", "alias/a"], ["rotate", "k"], ["disable", "k"], ["enable", "k"], ["delete", "k"],
    ["delete", "k", "--cancel"],
    ["purge", "k", "--yes-destroy", "k"], ["tag", "k", "a=b"], ["untag", "k", "a"],
]  # fmt: skip


@pytest.mark.parametrize("args", CHANGES, ids=" ".join)
def test_changes_need_a_daemon(rest: tuple[Path, dict[str, Any]], args: list[str]) -> None:
    folder, _ = rest
    before = (folder / "state/keyring.json").read_bytes()
    done = keyring(folder, *args)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"no daemon on {folder}/kpcache.sock: start it (kpcache serve)" in done.stderr
    assert (folder / "state/keyring.json").read_bytes() == before


def test_the_daemon_beside_it_is_not_taken_for_the_one_that_is_stopped(
    rest: tuple[Path, dict[str, Any]],
) -> None:
    """Two daemons whose sockets lie in one folder: admin.sock is that of the one which runs."""
    folder, told = rest
    with FakeServer(folder / "admin.sock") as other:
        assert keyring(folder, "rotate", "alias/app").returncode == 3
        assert answer(folder, "list") == told["list"]
        assert other.requests == []


def test_a_daemon_that_is_only_known_by_its_socket_must_be_named(rest: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = rest
    socket = str(folder / "kpcache.sock")
    for option, environ in (["--socket", socket], {}), ([], {"KPCACHE_SOCKET": socket}):
        for command in (["list"], ["describe", "alias/app"]):
            done = keyring(folder, *command, *option, config=False, **environ)
            assert (done.returncode, done.stdout) == (3, "")
            assert "--config FILE" in done.stderr


def test_where_there_is_no_keyring_none_is_made(tmp_path: Path) -> None:
    (tmp_path / "kpcache.toml").write_text(
        f'[daemon]\nsocket = "{tmp_path}/s"\nstate_dir = "{tmp_path}/state"\nruntime_dir = "{tmp_path}/r"\n'
    )
    for command in (["list"], ["describe", "k"]):
        done = keyring(tmp_path, *command)
        assert done.returncode == 3
        assert f"no keyring in {tmp_path}/state" in done.stderr
    assert not (tmp_path / "state").exists()


def test_while_another_process_holds_the_folder_one_is_told_to_try_again(
    rest: tuple[Path, dict[str, Any]],
) -> None:
    folder, told = rest
    with open(folder / "state/lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = keyring(folder, "list")
        assert (done.returncode, done.stdout) == (4, "")
        assert "try again" in done.stderr
    assert answer(folder, "list") == told["list"]


def test_a_daemon_that_does_not_answer_yet_keeps_its_keyring_to_itself(tmp_path: Path) -> None:
    """One that has the folder and does not listen yet, or has closed its sockets and not yet let go."""
    with running(tmp_path, CONFIG) as daemon:
        os.rename(daemon.admin_socket, tmp_path / "elsewhere")
        assert keyring(tmp_path, "list").returncode == 4
        os.rename(tmp_path / "elsewhere", daemon.admin_socket)
        assert keyring(tmp_path, "list").returncode == 0


def test_the_folder_of_another_user_is_left_alone(tmp_path: Path) -> None:
    """root would write files that the daemon's user could not read."""
    state = tmp_path / "state" if os.geteuid() == 0 else Path("/var/lib")
    if os.geteuid() == 0:
        state.mkdir(0o700)
        os.chown(state, 23451, 23451)
    (tmp_path / "kpcache.toml").write_text(
        f'[daemon]\nsocket = "{tmp_path}/s"\nstate_dir = "{state}"\nruntime_dir = "{tmp_path}/r"\n'
    )
    done = keyring(tmp_path, "list")
    assert done.returncode == 2
    assert f"{state} belongs to uid {state.stat().st_uid}" in done.stderr
    assert "run this as that user" in done.stderr


def _elsewhere(rest: Path, folder: Path, settings: str) -> Path:
    """A copy of the state folder in ``folder``, for a daemon with these settings of [keyring] too."""
    text = (rest / "kpcache.toml").read_text().replace(str(rest), str(folder))
    (folder / "kpcache.toml").write_text(f"{text}[keyring]\n{settings}\n")
    return Path(shutil.copytree(rest / "state", folder / "state"))


def test_keys_are_shown_and_saved_though_the_daemon_would_not_start(
    rest: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """It lacks the alias that its settings name: one reason more to look at what it has, and to export it."""
    _elsewhere(rest[0], tmp_path, 'default_alias = "alias/other"')
    assert answer(tmp_path, "list") == rest[1]["list"]
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    assert answer(tmp_path, "export", "--recipient", recipient)["Revision"] == 3


def test_what_only_looks_leaves_a_plain_file_plain_and_writes_nothing(
    rest: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    state = _elsewhere(rest[0], tmp_path, 'unlock = "credential"')
    (tmp_path / "kpcache-keyring").write_bytes(os.urandom(32))

    def files() -> dict[str, tuple[int, bytes]]:
        return {path.name: (path.stat().st_ino, path.read_bytes()) for path in state.iterdir()}

    before = files()
    for command, told in rest[1].items():
        done = keyring(tmp_path, *command.split(), "--json", CREDENTIALS_DIRECTORY=str(tmp_path))
        assert (json.loads(done.stdout), done.stderr) == (told, "")
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    done = keyring(
        tmp_path, "export", "--recipient", recipient, "--out", "-", CREDENTIALS_DIRECTORY=str(tmp_path)
    )
    assert done.returncode == 0
    assert files() == before


def test_a_damaged_keyring_is_told_with_the_cure(rest: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    text = (rest[0] / "kpcache.toml").read_text().replace(str(rest[0]), str(tmp_path))
    (tmp_path / "kpcache.toml").write_text(text)
    (tmp_path / "state").mkdir(0o700)
    file = tmp_path / "state/keyring.json"
    file.touch(mode=0o600)
    file.write_bytes((rest[0] / "state/keyring.json").read_bytes()[:-40])
    done = keyring(tmp_path, "list")
    assert done.returncode == 2
    assert "restore it from its backup" in done.stderr
