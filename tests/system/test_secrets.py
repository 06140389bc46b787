"""Where key material and processes can be seen from: logs, errors, titles, arguments, /proc, core files."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kpcache.errors import KpcacheError
from tests.system.harness import Daemon, pools, running

SPEC = "ECC_NIST_P256"


def test_nothing_secret_is_written_or_shown(tmp_path: Path) -> None:
    """Neither in the log, nor in errors, nor in names or arguments, after answers, refusals and deaths."""
    with running(tmp_path, pools(**{SPEC: 32})) as daemon:
        with daemon.client() as client:
            answer = client.generate_data_key_pair(
                KeyId="alias/kpcache", KeyPairSpec=SPEC, EncryptionContext={"secret": "of-the-context"}
            )
            errors = []
            for context in ({}, {"secret": "of-another"}):
                with pytest.raises(KpcacheError) as caught:
                    client.decrypt(
                        CiphertextBlob=answer["PrivateKeyCiphertextBlob"], EncryptionContext=context
                    )
                errors.append(repr(caught.value) + caught.value.message)
        os.kill(daemon.workers()["maker"][0], signal.SIGKILL)
        daemon.wait_log("ended (signal 9")
        shown = [
            Path("/proc", str(pid), name).read_bytes()
            for pid in daemon.all_pids()
            for name in ("cmdline", "comm")
        ]
        names = [str(path) for path in tmp_path.rglob("*")]
        log = list(daemon.log)
    text = "\n".join([*log, *errors, *names]).encode() + b"\n".join(shown)
    private = answer["PrivateKeyPlaintext"]
    keyring = (daemon.state_dir / "keyring.json").read_text()
    secrets = [private, private[36:68], *re.findall(r'"secret": *"([^"]+)"', keyring), "of-the-context"]
    assert len(secrets) >= 4, "the keyring's own secret was not found by this test"
    for secret in secrets:
        raw = secret.encode() if isinstance(secret, str) else secret
        assert raw not in text
        assert raw.hex().encode() not in text


# Without capabilities even root must ask the kernel's rules for reading another process.
WITHOUT_CAPABILITIES = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
PROBE = """
import os, sys
for pid in sys.argv[1:]:
    for name in ("mem", "environ"):
        try:
            os.close(os.open(f"/proc/{pid}/{name}", os.O_RDONLY))
            print("opened", pid)
        except PermissionError:
            print("refused", pid)
"""


def test_no_process_can_be_read_by_others_of_its_user(tmp_path: Path) -> None:
    """Not dumpable: a process of the same user can open neither memory nor environment.

    A plain process of that user, which the same probe can open, shows that the probe would notice.
    """
    daemon = Daemon(tmp_path, pools(**{SPEC: 32}), [*WITHOUT_CAPABILITIES, sys.executable, "-m", "kpcache"])
    control = subprocess.Popen(
        [*WITHOUT_CAPABILITIES, "sh", "-c", "echo ready; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        daemon.wait_log("serves on")
        assert control.stdout is not None
        assert control.stdout.readline() == b"ready\n"
        pids = daemon.all_pids()
        assert len(pids) == 5, "the daemon, two shards, two makers"
        probe = subprocess.run(
            [*WITHOUT_CAPABILITIES, sys.executable, "-c", PROBE, *map(str, pids), str(control.pid)],
            capture_output=True,
            text=True,
            check=True,
        )
        results = set(probe.stdout.splitlines())
        assert results == {f"opened {control.pid}", *(f"refused {pid}" for pid in pids)}
        assert daemon.stop() == 0
    finally:
        daemon.kill()
        control.communicate(b"\n")


def test_no_process_leaves_a_core_file(tmp_path: Path) -> None:
    with running(tmp_path, pools(**{SPEC: 32})) as daemon:
        for pid in daemon.all_pids():
            limits = Path("/proc", str(pid), "limits").read_text()
            assert re.search(r"Max core file size +0 +0 ", limits), pid


def test_a_module_planted_where_the_daemon_is_started_is_never_imported(tmp_path: Path) -> None:
    """The daemon is started by its command, with this folder as the current one; workers never see it."""
    for name in ("msgpack", "trio", "cryptography", "kpcache", "resource"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'planted')!r}, 'a').write({name!r})\n")
    command = [str(Path(sys.executable).with_name("kpcache"))]
    with running(tmp_path, pools(**{SPEC: 32}), command) as daemon, daemon.client() as client:
        client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=SPEC)
        assert len(daemon.all_pids()) == 5
    assert not (tmp_path / "planted").exists()
