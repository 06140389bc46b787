"""``aws-kms:KEY`` as the daemon asks for it: the real worker and the real SDK, and a KMS on loopback."""

import base64
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from kpcache.core.pipe import encode
from kpcache.core.settings import KeyringSettings
from kpcache.daemon.aws_unlock import DEADLINE_S, AwsKms, environment, unlock_of
from kpcache.errors import ConfigError
from kpcache.worker import aws_unlock as worker
from kpcache.worker import process
from tests.fake_kms import ALIAS, ARN, OTHER_ALIAS, OTHER_ARN, FakeKms, fake_kms
from tests.system.harness import pidfd, wait_gone

SECRET = bytes(range(32))
CONTEXT = {"kpcache": "keyring"}


@pytest.fixture
def kms() -> Iterator[FakeKms]:
    with fake_kms() as running:
        yield running


def key_of(kms: FakeKms, key: str = ALIAS, deadline_s: float = DEADLINE_S, **environ: str | None) -> AwsKms:
    """``environ`` on top of what leads to ``kms``; None takes a variable away."""
    merged = {**kms.environ, **environ}
    return AwsKms(key, {name: value for name, value in merged.items() if value is not None}, deadline_s)


def refusal(key: AwsKms, blob: bytes | None = None) -> str:
    """Why it does not wrap or, with a blob, does not unwrap; nothing secret in it, and no process left."""
    before = children()
    with pytest.raises(ConfigError) as caught:
        key.wrap(SECRET) if blob is None else key.unwrap(blob)
    assert caught.value.exit_code == 2
    told = caught.value.message
    assert SECRET.hex() not in told
    assert told.endswith("the keyring is untouched")
    assert children() == before
    return told


def children(pid: int | None = None) -> list[str]:
    """The pids of this process's children, or another's, those not waited for included."""
    pid = pid or os.getpid()
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.parametrize("name", [ALIAS, ARN])
def test_a_key_is_wrapped_and_opens_again(kms: FakeKms, name: str) -> None:
    wrapped = key_of(kms, name).wrap(SECRET)
    assert wrapped.key_arn == ARN
    assert key_of(kms, ALIAS).unwrap(wrapped.blob) == SECRET
    assert [operation for operation, _ in kms.asked] == ["Encrypt", "Decrypt", "Decrypt"]
    for _, members in kms.asked:
        assert members["EncryptionContext"] == CONTEXT
        assert members["KeyId"] in (name, ALIAS)


def test_credentials_that_may_encrypt_and_not_decrypt_are_refused_before_anything_is_sealed(
    kms: FakeKms,
) -> None:
    kms.fail("AccessDeniedException", "is not authorized to perform: kms:Decrypt", on="Decrypt")
    assert "kms:Encrypt and kms:Decrypt" in refusal(key_of(kms))


def test_a_service_whose_answers_do_not_open_again_is_refused(kms: FakeKms) -> None:
    kms.fails["Decrypt"] = 200, b'{"Plaintext": "AAAA", "KeyId": "k"}'
    assert "BadAnswer: what it encrypted does not open again" in refusal(key_of(kms))
    kms.fails["Decrypt"] = 200, b"<html>a portal</html>"
    assert "BadAnswer: it answers something else" in refusal(key_of(kms))
    kms.fails["Encrypt"] = 200, b"[]"
    assert "; the keyring is untouched" in refusal(key_of(kms))


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        ("AccessDeniedException", "allow these credentials kms:Encrypt and kms:Decrypt on this key"),
        ("DisabledException", "enable the key in AWS KMS"),
        ("KMSInvalidStateException", "if its deletion is scheduled, cancel it"),
        ("InvalidKeyUsageException", "name a symmetric key"),
        ("UnrecognizedClientException", "give this user valid credentials"),
        ("ExpiredTokenException", "give this user valid credentials"),
        ("SomethingNewException", "start again; if this stays, see what AWS says of this error"),
    ],
)
def test_what_kms_refuses_is_told_with_its_words_and_the_cure(kms: FakeKms, code: str, cure: str) -> None:
    kms.fail(code, "as AWS puts it\n\x1b[31m")
    told = refusal(key_of(kms))
    assert told.startswith(f'keyring.unlock = "aws-kms:{ALIAS}": {code}: as AWS puts it')
    assert cure in told
    assert told.isprintable()


def test_another_key_and_a_blob_of_another_hand(kms: FakeKms) -> None:
    blob = key_of(kms).wrap(SECRET).blob
    assert "IncorrectKeyException" in refusal(key_of(kms, OTHER_ALIAS), blob)
    assert "InvalidCiphertextException" in refusal(key_of(kms), blob[::-1])
    assert "NotFoundException" in refusal(key_of(kms, "alias/none"), blob)


def test_a_server_error_is_tried_again_and_told(kms: FakeKms) -> None:
    kms.fails[""] = 500, b"<html>sorry</html>"
    told = refusal(key_of(kms))
    assert "500" in told
    assert "start again" in told
    assert len(kms.asked) == 2


def test_what_the_sdk_does_not_find_is_told_with_the_cure(kms: FakeKms) -> None:
    region = refusal(key_of(kms, AWS_DEFAULT_REGION=None))
    assert "set AWS_DEFAULT_REGION, or name the key by its ARN" in region
    credentials = refusal(key_of(kms, AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None))
    assert "NoCredentials: Unable to locate credentials; give this user valid credentials" in credentials
    assert "give this user valid credentials" in refusal(key_of(kms, AWS_PROFILE="none"))
    assert "Settings: Invalid endpoint: nowhere" in refusal(key_of(kms, AWS_ENDPOINT_URL_KMS="nowhere"))
    assert kms.asked == []


@pytest.mark.parametrize(("key", "region"), [(ARN, None), (ALIAS, "eu-central-1")])
def test_an_arn_names_its_region_and_so_does_what_ecs_sets(
    kms: FakeKms, key: str, region: str | None
) -> None:
    asked = key_of(kms, key, AWS_DEFAULT_REGION=None, AWS_REGION=region)
    assert asked.unwrap(asked.wrap(SECRET).blob) == SECRET


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("InvalidSignatureException", "Signature expired: 19700101T000105Z is now earlier than 20261124T..."),
        ("InvalidSignatureException", "Signature not yet current: 20991124T045513Z is still later than ..."),
        ("RequestExpired", "Request has expired."),
    ],
)
def test_a_wrong_clock_is_told_to_be_one(kms: FakeKms, code: str, message: str) -> None:
    kms.fail(code, message)
    told = refusal(key_of(kms))
    assert f"{code}: {message}; set this machine's clock right; the keyring is untouched" in told
    kms.fail("InvalidSignatureException", "The request signature we calculated does not match")
    assert "give this user valid credentials" in refusal(key_of(kms))


@pytest.mark.parametrize(
    ("prints", "told"),
    [
        ("echo oops SECRET", "prints something else than a JSON object; give this user valid credentials"),
        ("echo '[\"SECRET\"]'", "prints something else than a JSON object"),
        ("printf '\\377SECRET'", "prints something else than a JSON object"),
        (None, "No such file or directory; where it is a program (credential_process), name it by its abs"),
    ],
    ids=["no JSON", "a list", "no text", "no program"],
)
def test_a_program_that_gives_no_credentials_is_told_to_be_the_cause(
    kms: FakeKms, tmp_path: Path, prints: str | None, told: str
) -> None:
    program, config = tmp_path / "program", tmp_path / "config"
    if prints is not None:
        program.write_text(f"#!/bin/sh\n{prints}\n")
        program.chmod(0o700)
    config.write_text(f"[default]\ncredential_process = {program if prints else 'program --of-ours'}\n")
    key = key_of(kms, AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None, AWS_CONFIG_FILE=str(config))
    message = refusal(key)
    assert "NoCredentials: " in message
    assert told in message
    assert "SECRET" not in message
    assert kms.asked == []


def test_an_error_longer_than_any_frame_is_cut_and_told(kms: FakeKms) -> None:
    kms.fail("AccessDeniedException", "no " * 6_000_000)
    told = refusal(key_of(kms))
    assert "AccessDeniedException: no no no" in told
    assert "allow these credentials kms:Encrypt and kms:Decrypt" in told


def test_an_endpoint_where_nobody_listens_is_told(kms: FakeKms) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        told = refusal(key_of(kms, AWS_ENDPOINT_URL_KMS=closed))
    assert "Unreachable: Could not connect to the endpoint URL" in told
    assert "AWS KMS cannot be reached; see to network, proxy and endpoint, and start again" in told


def test_a_service_that_hangs_ends_with_the_deadline(kms: FakeKms) -> None:
    kms.hangs.set()
    told = refusal(key_of(kms, deadline_s=2.0))
    assert "no answer from AWS KMS within 2 s" in told


def test_a_program_for_credentials_ends_with_the_deadline_too_and_is_told_nothing(
    kms: FakeKms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the SDK's child, not ours. The pipe that it holds ends when it does."""
    fifo, program, config = (tmp_path / name for name in ("fifo", "program", "config"))
    program.write_text(f"#!/bin/sh\nexec 9> {fifo}\nreadlink /proc/$$/fd/0 >&9\nexec sleep 1000\n")
    program.chmod(0o700)
    config.write_text(f"[default]\ncredential_process = {program}\n")
    os.mkfifo(fifo)
    said: list[IO[str]] = []

    def until_it_runs(worker: "subprocess.Popen[bytes]", timeout: float) -> None:
        said.append(open(fifo))  # noqa: SIM115 - closed below
        assert said[0].readline() == "/dev/null\n"
        raise subprocess.TimeoutExpired(worker.args, timeout)

    monkeypatch.setattr(subprocess.Popen, "communicate", until_it_runs)
    key = key_of(kms, AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None, AWS_CONFIG_FILE=str(config))
    assert "no answer from AWS KMS within 30 s" in refusal(key)
    with said[0]:
        assert select.select(said, [], [], 10)[0], "it lives on"
        assert said[0].read() == ""


# --- the worker itself


def started(kms: FakeKms) -> tuple["subprocess.Popen[bytes]", socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        child = subprocess.Popen(
            process.command("kpcache.worker.aws_unlock"), stdin=theirs.fileno(), stdout=subprocess.PIPE,
            env=environment({**os.environ, **kms.environ}), cwd="/",
        )  # fmt: skip
    return child, ours


def test_while_it_asks_nothing_secret_can_be_seen_from_outside(kms: FakeKms) -> None:
    kms.hangs.set()
    child, ours = started(kms)
    with child, ours:
        ours.sendall(encode(["wrap", ALIAS, SECRET]))
        assert kms.arrived.wait(60)
        folder = Path("/proc", str(child.pid))
        seen = b"".join((folder / name).read_bytes() for name in ("cmdline", "environ", "comm"))
        assert (folder / "comm").read_text() == "kpcache-aws\n"
        assert os.readlink(folder / "cwd") == "/"
        assert os.readlink(folder / "fd/0") == os.devnull
        assert "Max core file size        0                    0" in (folder / "limits").read_text()
        child.kill()
    assert kms.secrets == [SECRET]
    assert SECRET not in seen
    assert SECRET.hex().encode() not in seen


def test_it_ends_with_the_process_that_started_it(kms: FakeKms) -> None:
    kms.hangs.set()
    source = (
        "import os, sys; from kpcache.daemon.aws_unlock import AwsKms;"
        f"AwsKms({ALIAS!r}, os.environ, 600.0).wrap(bytes(32))"
    )
    parent = subprocess.Popen([sys.executable, "-c", source], env={**os.environ, **kms.environ})
    with parent:
        assert kms.arrived.wait(60)
        [child] = children(parent.pid)
        with pidfd(int(child)) as handle:
            assert handle is not None
            parent.kill()
            wait_gone([handle], 10.0)


def test_without_boto3_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    failed = worker.answer(["wrap", ALIAS, SECRET])
    assert failed[:2] == ["failed", "NoSdk"]
    monkeypatch.setattr(AwsKms, "_ask", lambda *_: failed)
    told = refusal(AwsKms(ALIAS, {}, 1.0))
    assert "boto3" in told.partition(";")[0]
    assert f"run: {sys.executable} -m pip install boto3; " in told


def test_an_error_that_nobody_expects_shows_its_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: Any) -> Any:
        raise RuntimeError(SECRET.hex())

    monkeypatch.setattr(worker, "_client", defect)
    assert worker.answer(["wrap", ALIAS, SECRET]) == ["failed", "Defect", "RuntimeError"]


@pytest.mark.parametrize(("quiet", "shown"), [("", True), ("worker.quiet()", False)])
def test_the_sdks_logs_show_what_is_sent_unless_they_are_kept_quiet(
    kms: FakeKms, quiet: str, shown: bool
) -> None:
    source = f"""
import logging
from kpcache.worker import aws_unlock as worker
logging.basicConfig(level=logging.DEBUG)
{quiet}
assert worker.answer(["wrap", {ALIAS!r}, {SECRET!r}])[0] == "wrapped"
"""
    log = subprocess.run(
        [sys.executable, "-c", source], env={**os.environ, **kms.environ}, check=True, capture_output=True
    ).stderr
    assert (base64.b64encode(SECRET) in log) is shown


def test_a_worker_that_ends_without_a_word_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "command", lambda _: [sys.executable, "-c", "raise SystemExit('no luck')"])
    assert "its worker ended without an answer (status 1: no luck)" in refusal(AwsKms(ALIAS, {}, 60.0))
    monkeypatch.setattr(process, "command", lambda _: ["/nowhere/python"])
    assert "its worker cannot be started (No such file or directory)" in refusal(AwsKms(ALIAS, {}, 60.0))


def test_of_the_environment_it_gets_what_the_sdk_finds_its_way_by() -> None:
    kept = {"HOME": "/home/k", "AWS_PROFILE": "p", "https_proxy": "u", "NO_PROXY": "n", "SSL_CERT_FILE": "f"}
    gone = {"PATH": "/bin", "PYTHONPATH": "/tmp", "LD_PRELOAD": "x", "KPCACHE_SOCKET": "s"}
    assert environment(kept | gone) == {"LANG": "C.UTF-8", **kept}


def test_the_settings_say_which_key() -> None:
    unlock = unlock_of(KeyringSettings(unlock=f"aws-kms:{OTHER_ARN}"), {})
    assert (unlock.mode, unlock.source) == ("aws-kms", f"AWS KMS key {OTHER_ARN}")
    credential = unlock_of(KeyringSettings(unlock="credential"), {"CREDENTIALS_DIRECTORY": "/c"})
    assert (credential.mode, credential.credentials, credential.wrapper) == ("credential", Path("/c"), None)
