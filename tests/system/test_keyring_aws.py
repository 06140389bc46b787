"""A keyring sealed under a key in AWS KMS, under the real daemon and on the command line."""

import base64
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_kms import ALIAS, ARN, OTHER_ALIAS, FakeKms, fake_kms
from tests.system.harness import PATIENCE_S, Daemon, descendants, pidfd, pools, running, wait_gone
from tests.system.keyring_commands import answer, keyring, said

SPEC = "ECC_NIST_P256"
# No pool: a start is quick.
POOLS = pools()
CONFIG = f'{POOLS}[keyring]\nunlock = "aws-kms:{ALIAS}"\n'
FILE = "keyring.json"
# The real program with another deadline: half a minute is long to wait for in a test.
HASTY = [
    sys.executable,
    "-c",
    "import sys; from kpcache.daemon import aws_unlock; aws_unlock.DEADLINE_S = 2.0;"
    "from kpcache.cli.main import main; sys.exit(main())",
]


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKms]:
    """A KMS that every program which a test starts is led to."""
    with fake_kms() as service:
        for name, value in service.environ.items():
            monkeypatch.setenv(name, value)
        yield service


def refusal(folder: Path, config: str = CONFIG, command: list[str] | None = None) -> str:
    """What a daemon says that must not start there: one line, exit code 2; the keyring is as it was."""
    before = (folder / "state" / FILE).read_bytes()
    daemon = Daemon(folder, config, command)
    try:
        code = daemon.process.wait(PATIENCE_S)
    finally:
        daemon.kill()
    [line, end] = daemon.log
    assert (code, end) == (2, ""), daemon.log
    assert (folder / "state" / FILE).read_bytes() == before
    return line


def secrets_of(folder: Path, kms: FakeKms) -> list[bytes]:
    """What must be seen nowhere: data keys, and a key's material as an open keyring file would have it."""
    state = Path(folder, "state")
    assert json.loads((state / FILE).read_bytes())["unlock"] == "aws-kms"
    return [shape for key in kms.secrets for shape in (key, key.hex().encode(), base64.b64encode(key))]


def test_a_first_start_seals_and_the_next_one_opens(tmp_path: Path, kms: FakeKms) -> None:
    with running(tmp_path, CONFIG) as daemon, daemon.client() as client:
        pair = client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=SPEC)
        assert daemon.status()["keyring"]["sealed"] == "aws-kms"
        shown = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in daemon.all_pids()]
        shown += [Path(f"/proc/{pid}/environ").read_bytes() for pid in daemon.all_pids()]
        assert not any(b"aws_unlock" in line for line in shown), "the worker stays only for the start"
    assert [operation for operation, _ in kms.asked] == ["Encrypt", "Decrypt"]
    shown += [path.read_bytes() for path in daemon.state_dir.iterdir()] + ["\n".join(daemon.log).encode()]
    for secret in secrets_of(tmp_path, kms):
        assert not any(secret in text for text in shown)
    with running(tmp_path, CONFIG) as daemon, daemon.client() as client:
        opened = client.decrypt(CiphertextBlob=pair["PrivateKeyCiphertextBlob"])
    assert opened["Plaintext"] == pair["PrivateKeyPlaintext"]
    assert kms.asked[2] == ("Decrypt", {**kms.asked[1][1], "KeyId": ALIAS})
    assert len(kms.asked) == 3


def test_once_it_serves_aws_need_not_answer(tmp_path: Path, kms: FakeKms) -> None:
    with running(tmp_path, CONFIG):
        kms.fail("AccessDeniedException")
        answer(tmp_path, "create", "--alias", "alias/app")
        answer(tmp_path, "rotate", "alias/app")
    assert len(kms.asked) == 2
    kms.fails.clear()
    with running(tmp_path, CONFIG):
        assert "alias/app" in said(tmp_path, "list")


def test_a_plain_keyring_is_sealed_by_the_first_start_that_names_a_key(tmp_path: Path, kms: FakeKms) -> None:
    with running(tmp_path, POOLS):
        pass
    plain = (tmp_path / "state" / FILE).read_bytes()
    secret = json.loads(plain)["content"]["keys"][0]["materials"][0]["secret"].encode()
    kms.fail("DisabledException")
    assert "enable the key in AWS KMS" in refusal(tmp_path)
    kms.fails.clear()
    with running(tmp_path, CONFIG) as daemon:
        daemon.wait_log("was plain and is now sealed (keyring.unlock = aws-kms)")
    assert not any(secret in path.read_bytes() for path in (tmp_path / "state").iterdir())
    assert 'opens with keyring.unlock = "aws-kms:KEY", not "file"' in refusal(tmp_path, POOLS)


def test_a_start_that_cannot_open_it_says_why_and_leaves_the_file(
    tmp_path: Path, kms: FakeKms, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, CONFIG):
        pass
    told = refusal(tmp_path, CONFIG.replace(ALIAS, OTHER_ALIAS))
    assert f'{FILE}: keyring.unlock = "aws-kms:{OTHER_ALIAS}": IncorrectKeyException' in told
    assert f"the keyring is untouched (it was sealed under {ARN})" in told
    kms.fail("AccessDeniedException", "User: x is not authorized to perform: kms:Decrypt")
    assert "not authorized to perform: kms:Decrypt; allow these credentials kms:Encrypt" in refusal(tmp_path)
    kms.hangs.set()
    assert "no answer from AWS KMS within 2 s" in refusal(tmp_path, command=HASTY)
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:1")
    told = refusal(tmp_path)
    assert "AWS KMS cannot be reached" in told
    assert "the keyring is untouched" in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_start_that_is_ended_while_it_waits_leaves_no_process_and_no_keyring(
    tmp_path: Path, kms: FakeKms, number: signal.Signals
) -> None:
    kms.hangs.set()
    daemon = Daemon(tmp_path, CONFIG)
    try:
        assert kms.arrived.wait(PATIENCE_S)
        [_, worker] = descendants(daemon.process.pid)
        with pidfd(worker) as ended:
            assert ended is not None
            daemon.process.send_signal(number)
            daemon.process.wait(PATIENCE_S)
            wait_gone([ended], PATIENCE_S)
    finally:
        daemon.kill()
    assert not (tmp_path / "state" / FILE).exists()
    kms.hangs.clear()
    kms.released.set()
    with running(tmp_path, CONFIG):
        pass


def test_the_command_line_asks_once_while_the_daemon_is_stopped(tmp_path: Path, kms: FakeKms) -> None:
    with running(tmp_path, CONFIG):
        answer(tmp_path, "create", "--alias", "alias/app")
        told: dict[str, Any] = {
            args: answer(tmp_path, *args.split()) for args in ("list", "describe alias/app")
        }
    for args, before in told.items():
        asked = len(kms.asked)
        assert answer(tmp_path, *args.split()) == before
        assert len(kms.asked) == asked + 1
    assert "alias/app" in said(tmp_path, "list")
    kms.fail("AccessDeniedException")
    before_file = (tmp_path / "state" / FILE).read_bytes()
    done = keyring(tmp_path, "list")
    assert (done.returncode, done.stdout) == (2, "")
    assert "allow these credentials kms:Encrypt and kms:Decrypt on this key" in done.stderr
    assert (tmp_path / "state" / FILE).read_bytes() == before_file
