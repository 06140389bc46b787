"""The keyring under the real daemon: lost, damaged or open to others, it is neither used nor replaced."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kpcache.errors import InvalidCiphertextException
from tests.system.harness import PATIENCE_S, Daemon, pools, running

SPEC = "ECC_NIST_P256"
# No pool: a pair is made when it is asked for, so that a start is quick.
CONFIG = pools()
# Without capabilities the kernel's rules on files hold for root too.
ORDINARY = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "kpcache"]
FILE = "keyring.json"


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The state folder that a daemon has left, and a pair that it has given out."""
    folder = tmp_path_factory.mktemp("used")
    with running(folder, CONFIG) as daemon, daemon.client() as client:
        pair = client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=SPEC)
    return daemon.state_dir, dict(pair)


@pytest.fixture
def state(used: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy of that folder, where a daemon in ``tmp_path`` has its own."""
    return Path(shutil.copytree(used[0], tmp_path / "state"))


@pytest.fixture
def pair(used: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    return used[1]


def refusal(folder: Path, config: str = CONFIG) -> str:
    """What a daemon says that must not start there: one line, exit code 2."""
    daemon = Daemon(folder, config, ORDINARY)
    try:
        code = daemon.process.wait(PATIENCE_S)
    finally:
        daemon.kill()
    [line, end] = daemon.log
    assert (code, end) == (2, ""), daemon.log
    return line


def opened(folder: Path, pair: dict[str, Any], config: str = CONFIG) -> bytes:
    """The private key of the pair, by a daemon that starts there and stops."""
    with running(folder, config, ORDINARY) as daemon, daemon.client() as client:
        answer = client.decrypt(CiphertextBlob=pair["PrivateKeyCiphertextBlob"])
    return bytes(answer["Plaintext"])


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _of_a_later_version(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))


def _edited(path: Path) -> None:
    path.write_text(path.read_text().replace("Enabled", "Disabled"))


def _link(path: Path) -> None:
    path.symlink_to(path.rename(path.parent.parent / "elsewhere.json"))


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


RESTORE = "restore it from its backup, and do not delete it"


@pytest.mark.parametrize(
    ("harm", "told", "cure"),
    [
        (Path.unlink, "missing, yet it was made here", "restore keyring.json from its backup"),
        (_cut, "it is not JSON", RESTORE),
        (lambda path: os.truncate(path, 0), "it is not JSON", RESTORE),
        (lambda path: path.write_text("{}"), "it is not a kpcache keyring", RESTORE),
        (
            _of_a_later_version,
            "a later kpcache wrote it, in version 99",
            "the file is whole: use that kpcache",
        ),
        (_edited, "its checksum does not match", RESTORE),
        (lambda path: path.chmod(0o644), "mode 0644 lets other users in", "run: chmod 600 {}"),
        (lambda path: path.chmod(0), "not readable for us", "chmod 600 {}"),
        (lambda path: path.parent.chmod(0o770), "mode 0770 lets other users in", "run: chmod go-w {parent}"),
        (_link, "is a symbolic link", "put the file itself here"),
        (_fifo, "is not a regular file", "restore the keyring from its backup"),
    ],
    ids=["lost", "cut", "empty", "foreign", "later", "edited", "open", "closed", "folder", "link", "fifo"],
)
def test_a_keyring_that_cannot_be_used_keeps_the_daemon_from_starting(
    state: Path, pair: dict[str, Any], tmp_path: Path, harm: Callable[[Path], object], told: str, cure: str
) -> None:
    backup = shutil.copytree(state, tmp_path / "backup")
    harm(state / FILE)
    before = sorted(path.name for path in state.iterdir())
    line = refusal(tmp_path)
    assert told in line
    assert cure.format(shlex.quote(str(state / FILE)), parent=shlex.quote(str(state))) in line
    assert sorted(path.name for path in state.iterdir()) == before
    shutil.rmtree(state)
    shutil.copytree(backup, state)
    assert opened(tmp_path, pair) == pair["PrivateKeyPlaintext"]


def test_a_lost_keyring_is_given_up_only_by_the_command_that_is_told(
    state: Path, pair: dict[str, Any], tmp_path: Path
) -> None:
    (state / FILE).unlink()
    command = refusal(tmp_path).partition("run: ")[2]
    assert refusal(tmp_path).endswith(command)  # it does not go away by itself
    subprocess.run(["/bin/sh", "-c", command], check=True)
    with pytest.raises(InvalidCiphertextException):
        opened(tmp_path, pair)


def test_a_plain_keyring_is_sealed_by_the_first_start_that_is_given_a_secret(
    state: Path, pair: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = f'{CONFIG}[keyring]\nunlock = "credential"\n'
    plain = (state / FILE).read_bytes()
    assert "systemd-creds encrypt --name=kpcache-keyring" in refusal(tmp_path, sealed)
    assert (state / FILE).read_bytes() == plain
    secret = tmp_path / "kpcache-keyring"
    secret.write_bytes(os.urandom(32))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with running(tmp_path, sealed, ORDINARY) as daemon:
        assert "was plain and is now sealed (keyring.unlock = credential)" in daemon.wait_log("sealed")
    secrets = [key["materials"][0]["secret"].encode() for key in json.loads(plain)["content"]["keys"]]
    assert not any(item in path.read_bytes() for path in state.iterdir() for item in secrets)
    assert opened(tmp_path, pair, sealed) == pair["PrivateKeyPlaintext"]
    assert 'opens with keyring.unlock = "credential", not "file"' in refusal(tmp_path)
    secret.write_bytes(os.urandom(32))
    assert "does not open with systemd's credential" in refusal(tmp_path, sealed)


def test_a_second_daemon_on_one_state_folder_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with running(tmp_path, CONFIG) as first:
        line = refusal(tmp_path)
        assert f"another kpcache process uses {first.state_dir}" in line
        assert "its own daemon.state_dir" in line
        with first.client() as client:
            client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=SPEC)


def test_a_second_daemon_on_one_socket_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with running(tmp_path, CONFIG) as first:
        second = tmp_path / "second.toml"
        second.write_text(
            f'[daemon]\nsocket = "{first.socket}"\nstate_dir = "{tmp_path / "other"}"\n'
            f'runtime_dir = "{tmp_path / "reserve2"}"\n{CONFIG}'
        )
        done = subprocess.run(
            [sys.executable, "-m", "kpcache", "serve", "--config", str(second)],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        [made, refused] = done.stderr.splitlines()
        assert done.returncode == 2
        assert "keyring.json was made, as at a first start" in made
        assert "another daemon answers there" in refused
        with first.client() as client:
            client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=SPEC)
