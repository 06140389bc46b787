"""An ordinary user without any settings: ``kpcache serve`` in one terminal, ``kpcache get`` in another."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import PATIENCE_S, descendants

# No user of this machine has it; root's tests become it, anybody else's stay who they are.
_UID = 23451 if os.geteuid() == 0 else os.geteuid()


@pytest.fixture
def home() -> Iterator[Path]:
    """The user's home, in a place that the user can reach: pytest's own folders are for root alone."""
    with tempfile.TemporaryDirectory(prefix="home-of-a-test-") as name:
        folder = Path(name)
        if os.geteuid() == 0:
            os.chown(folder, _UID, _UID)
        yield folder


# Starts itself again, as the daemon starts its workers: the first time it may still run with root's rights.
PROBE = "import os, sys; os.execv(sys.executable, [sys.executable, '-c', 'import kpcache'])"


def command() -> list[str]:
    """This interpreter's kpcache as that user. Where the user may not read it, because it lies in root's
    home or in a temporary folder, the user gets the right to search and read, or if root has not that
    one to give, to open any file; it stays an ordinary user to all that kpcache asks about."""
    if os.geteuid() != 0:
        return [sys.executable, "-m", "kpcache"]
    user = ["setpriv", f"--reuid={_UID}", f"--regid={_UID}", "--clear-groups"]
    told = []
    for right in ("", ",+dac_read_search", ",+dac_override"):
        plain = [*user, f"--inh-caps=-all{right}", f"--ambient-caps=-all{right}", sys.executable]
        probe = subprocess.run([*plain, "-c", PROBE], cwd="/", capture_output=True, check=False)
        if probe.returncode == 0:
            return [*plain, "-m", "kpcache"]
        told.append(probe.stderr)
    raise AssertionError(f"uid {_UID} cannot run {sys.executable}: {told}")


@pytest.mark.parametrize("runtime_folder", [False, True])
def test_the_embedded_defaults_work_and_the_client_finds_the_daemon(home: Path, runtime_folder: bool) -> None:
    environ = {"HOME": str(home), "PATH": os.environ["PATH"]}
    socket = home / ".local/state/kpcache/kpcache.sock"
    if runtime_folder:
        runtime = home / "run"
        runtime.mkdir(0o700)
        shutil.chown(runtime, _UID)
        environ["XDG_RUNTIME_DIR"] = str(runtime)
        socket = runtime / "kpcache/kpcache.sock"
    kpcache = command()
    with subprocess.Popen(
        [*kpcache, "serve"], env=environ, cwd="/", stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as daemon:
        try:
            assert daemon.stderr is not None
            greeting = ""
            while "try: kpcache get" not in greeting:  # a warning may come first: few descriptors, say
                line = daemon.stderr.readline()
                assert line, f"it ended: {greeting}"
                greeting += line
            state = home / ".local/state/kpcache/state"
            assert f"serves on {socket}; keys and state are in {state}\n" in greeting
            # It says what to type, and that needs no --socket.
            assert greeting.endswith("try: kpcache get RSA_2048\n")
            got = subprocess.run(
                [*kpcache, "get", "ECC_NIST_P256", "--wait", "30"],
                env=environ, cwd="/", capture_output=True, timeout=PATIENCE_S, check=False,
            )  # fmt: skip
            assert (got.returncode, got.stderr) == (0, b"")
            assert json.loads(got.stdout)["KeyPairSpec"] == "ECC_NIST_P256"
            found = {path: path.lstat() for path in (state, state / "keyring.json", socket)}
            assert {status.st_uid for status in found.values()} == {_UID}
            assert [stat.S_IMODE(status.st_mode) for status in found.values()] == [0o700, 0o600, 0o660]
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(PATIENCE_S) == 0
            assert not socket.exists()
        finally:
            for pid in descendants(daemon.pid):
                os.kill(pid, signal.SIGKILL)
