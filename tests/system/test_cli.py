"""The ``kpcache`` command as a process, against a stand-in server; its files in the tools that read them."""

import base64
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.fake_server import KEY_ARN, FakeServer, status

Done = subprocess.CompletedProcess[bytes]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeServer]:
    with FakeServer(tmp_path / "kpcache.sock") as server:
        yield server


def kpcache(server: FakeServer | None, *args: str, stdin: bytes = b"") -> Done:
    environ = {**os.environ, "KPCACHE_SOCKET": str(server.path) if server else "/nonexistent/kpcache.sock"}
    command = [sys.executable, "-m", "kpcache", *args]
    return subprocess.run(command, input=stdin, capture_output=True, env=environ, timeout=60, check=False)


def to_full_disk(server: FakeServer, *args: str) -> Done:
    command = [sys.executable, "-m", "kpcache", *args]
    environ = {**os.environ, "KPCACHE_SOCKET": str(server.path)}
    with open("/dev/full", "wb") as full:
        return subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, env=environ, timeout=60, check=False
        )


def tool(*command: str) -> bytes:
    """Run openssl or ssh-keygen; a machine without them cannot run these tests, and says so."""
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def on_terminal(server: FakeServer, *args: str) -> tuple[int, bytes, bytes]:
    """The command with a terminal for stdout: (exit code, what the terminal got, stderr)."""
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "kpcache", *args],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=subprocess.PIPE,
        env={**os.environ, "KPCACHE_SOCKET": str(server.path)},
    ) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                data = os.read(controller, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if not data:
                break
            shown += data
        os.close(controller)
        _, told = process.communicate(timeout=60)
    return process.returncode, shown, told


# get


def test_get_prints_the_answer_as_the_aws_cli_does(server: FakeServer) -> None:
    done = kpcache(server, "get", "ECC_NIST_P256", "--context", "app=billing", "--wait", "2")
    assert (done.returncode, done.stderr) == (0, b"")
    answer = json.loads(done.stdout)
    assert list(answer) == [
        "PrivateKeyCiphertextBlob", "PrivateKeyPlaintext", "PublicKey",
        "KeyId", "KeyPairSpec", "KeyMaterialId",
    ]  # fmt: skip
    assert done.stdout.startswith(b'{\n    "PrivateKeyCiphertextBlob": "')
    assert answer["KeyId"] == KEY_ARN
    assert server.requests[-1] == (
        "GenerateDataKeyPair",
        [
            {
                "KeyPairSpec": "ECC_NIST_P256",
                "EncryptionContext": {"app": "billing"},
                "KeyId": "alias/kpcache",
            },
            {"wait_s": 2.0},
        ],
    )


def test_get_uses_the_daemons_own_alias_unless_told(server: FakeServer) -> None:
    server.status["keyring"]["default_alias"] = "alias/other"
    kpcache(server, "get", "ECC_NIST_P256")
    kpcache(server, "get", "ECC_NIST_P256", "--key-id", "alias/named")
    asked = [params[0]["KeyId"] for method, params in server.requests if method == "GenerateDataKeyPair"]
    assert asked == ["alias/other", "alias/named"]


def test_count_prints_what_it_got_and_then_the_error(server: FakeServer) -> None:
    server.dry_after = 2
    done = kpcache(server, "get", "ECC_NIST_P256", "--count", "3")
    assert done.returncode == 4
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({answer["PrivateKeyPlaintext"] for answer in answers}) == 2
    assert b"ThrottlingException (pool_dry): no pair at hand; try again in 0.5 s" in done.stderr


def test_a_pair_is_put_out_before_the_next_is_asked_for(server: FakeServer) -> None:
    # A pair in a buffer when the command is killed would be lost.
    go = threading.Event()

    def hold_the_second_pair(number: int, _msgid: int) -> None:
        if number == 3:
            go.wait(20)

    server.fault = hold_the_second_pair
    command = [sys.executable, "-m", "kpcache", "get", "ECC_NIST_P256", "--count", "3"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command += ["--socket", str(server.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=buffered) as process:
        assert process.stdout
        assert json.loads(process.stdout.readline())
        assert len(server.requests) <= 3
        go.set()
        assert len(process.stdout.readlines()) == 2


def test_without_plaintext(server: FakeServer) -> None:
    done = kpcache(server, "get", "ECC_NIST_P256", "--without-plaintext")
    assert "PrivateKeyPlaintext" not in json.loads(done.stdout)
    pem = kpcache(server, "get", "ECC_NIST_P256", "--without-plaintext", "--format", "pem").stdout
    assert pem.startswith(b"-----BEGIN PUBLIC KEY-----")
    assert b"PRIVATE" not in pem


@pytest.mark.parametrize("spec", ["RSA_2048", "ECC_NIST_P256", "ECC_NIST_EDWARDS25519"])
@pytest.mark.parametrize("form", ["pem", "der"])
def test_openssl_reads_what_get_writes(server: FakeServer, tmp_path: Path, spec: str, form: str) -> None:
    out = tmp_path / "out"
    done = kpcache(server, "get", spec, "--format", form, "--out", str(out))
    assert done.returncode == 0, done.stderr
    private, public, blob = (Path(line) for line in done.stdout.decode().splitlines())
    assert [path.name for path in (private, public, blob)] == [
        f"{spec.lower()}.private.{form}", f"{spec.lower()}.public.{form}", f"{spec.lower()}.blob",
    ]  # fmt: skip
    derived = tool("openssl", "pkey", "-inform", form, "-in", str(private), "-pubout", "-outform", "DER")
    shown = tool("openssl", "pkey", "-pubin", "-inform", form, "-in", str(public), "-outform", "DER")
    assert derived == shown
    tool("openssl", "pkey", "-inform", form, "-in", str(private), "-check", "-noout")


def test_openssl_finds_either_key_in_the_pem_on_stdout(server: FakeServer, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(kpcache(server, "get", "ECC_NIST_P256", "--format", "pem").stdout)
    derived = tool("openssl", "pkey", "-in", str(both), "-pubout")
    assert tool("openssl", "pkey", "-pubin", "-in", str(both), "-pubout") == derived


@pytest.mark.skipif(
    shutil.which("ssh-keygen") is None,
    reason="NOT TESTED: ssh-keygen is not installed (Debian: apt-get install openssh-client)",
)
@pytest.mark.parametrize("spec", ["RSA_2048", "ECC_NIST_P256", "ECC_NIST_EDWARDS25519"])
def test_ssh_keygen_reads_what_get_writes(server: FakeServer, tmp_path: Path, spec: str) -> None:
    done = kpcache(server, "get", spec, "--format", "openssh", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    private, public, _ = done.stdout.decode().splitlines()
    derived = tool("ssh-keygen", "-y", "-f", private)
    assert derived.split()[:2] == Path(public).read_bytes().split()[:2]


def test_files_are_private_and_never_replaced(server: FakeServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert kpcache(server, "get", "ECC_NIST_P256", "--out", str(out)).returncode == 0
    file = out / "ecc_nist_p256.json"
    assert out.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600
    content = file.read_bytes()
    asked = len(server.requests)
    again = kpcache(server, "get", "ECC_NIST_P256", "--format", "pem", "--out", str(out))
    assert again.returncode == 2
    assert b"exists" in again.stderr
    # It was seen before a pair was taken: one that cannot be written is lost.
    assert len(server.requests) == asked
    assert os.listdir(out) == [file.name]
    assert file.read_bytes() == content


def test_several_pairs_are_numbered_files(server: FakeServer, tmp_path: Path) -> None:
    server.dry_after = 2
    done = kpcache(
        server, "get", "ECC_NIST_P256", "--format", "jwk", "--count", "10", "--out", str(tmp_path / "o")
    )
    assert done.returncode == 4
    stems = {f"ecc_nist_p256-{number:02}" for number in (1, 2)}
    assert {name.partition(".")[0] for name in os.listdir(tmp_path / "o")} == stems
    assert len(done.stdout.splitlines()) == 6


def test_on_a_terminal_the_pair_is_shown_as_pem(server: FakeServer) -> None:
    code, shown, told = on_terminal(server, "get", "ECC_NIST_P256")
    assert code == 0
    assert shown.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert b"--format json" in told


# decrypt


@pytest.mark.parametrize("raw", [True, False])
def test_decrypt_opens_a_blob_and_the_json_of_get(server: FakeServer, tmp_path: Path, raw: bool) -> None:
    got = kpcache(server, "get", "ECC_NIST_P256", "--context", "a=b").stdout
    answer = json.loads(got)
    data = base64.b64decode(answer["PrivateKeyCiphertextBlob"]) if raw else got
    file = tmp_path / "file"
    file.write_bytes(data)
    private = base64.b64decode(answer["PrivateKeyPlaintext"])
    assert kpcache(server, "decrypt", "--context", "a=b", str(file)).stdout == private
    assert kpcache(server, "decrypt", "--context", "a=b", "-", stdin=data).stdout == private
    refused = kpcache(server, "decrypt", str(file))
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert b"InvalidCiphertextException" in refused.stderr


def test_key_bytes_do_not_go_to_a_terminal(server: FakeServer, tmp_path: Path) -> None:
    file = tmp_path / "answer.json"
    file.write_bytes(kpcache(server, "get", "ECC_NIST_P256").stdout)
    asked = len(server.requests)
    for args in (["decrypt", str(file)], ["get", "ECC_NIST_P256", "--format", "der"]):
        code, shown, told = on_terminal(server, *args)
        assert (code, shown) == (2, b"")
        assert b"terminal" in told
    assert len(server.requests) == asked


@pytest.mark.parametrize("data", [b"", b"x" * 70_000])
def test_a_file_that_can_be_no_blob_is_not_sent(server: FakeServer, data: bytes) -> None:
    assert kpcache(server, "decrypt", "-", stdin=data).returncode == 2
    assert server.requests == []


# status, wait, exit codes


def test_status_for_people_and_for_programs(server: FakeServer) -> None:
    assert json.loads(kpcache(server, "status", "--json").stdout) == server.status
    table = kpcache(server, "status").stdout.decode()
    assert f"on {server.path}: full" in table
    assert "ECC_NIST_P256" in table
    assert "shard 0" in table


def test_watching_ends_with_ctrl_c(server: FakeServer) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "kpcache", "status", "--json", "--watch", "--socket", str(server.path)],
        stdout=subprocess.PIPE,
        # As at a terminal: what a shell starts in the background ignores it, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout
        assert json.loads(process.stdout.readline()) == server.status
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_wait(server: FakeServer) -> None:
    server.status = status(held=5)
    assert kpcache(server, "wait").returncode == 0
    assert kpcache(server, "wait", "--level", "62%").returncode == 0
    late = kpcache(server, "wait", "--level", "full", "--timeout", "0")
    assert late.returncode == 4
    assert b"ECC_NIST_P256 5/8" in late.stderr


@pytest.mark.parametrize(
    "args",
    [["get", "RSA_2048"], ["status"], ["wait", "--timeout", "0"], ["decrypt", "-"]],
    ids=lambda a: a[0],
)
def test_no_daemon_is_exit_code_3_and_names_the_socket(args: list[str]) -> None:
    done = kpcache(None, *args, stdin=b"blob")
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"/nonexistent/kpcache.sock" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_refusal_is_exit_code_1(server: FakeServer) -> None:
    done = kpcache(server, "get", "SM2")
    assert done.returncode == 1
    assert done.stderr == b"kpcache: UnsupportedOperationException: the fake server makes no SM2\n"


def test_a_reader_that_leaves_is_no_traceback(server: FakeServer) -> None:
    command = f"{sys.executable} -m kpcache get ECC_NIST_P256 --count 2000 --socket {server.path} | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("args", "lost"),
    [
        (["get", "ECC_NIST_P256"], True),
        (["get", "ECC_NIST_P256", "--count", "2"], True),
        (["get", "ECC_NIST_P256", "--format", "pem"], True),
        (["get", "ECC_NIST_P256", "--format", "der", "--without-plaintext"], True),
        (["decrypt", "BLOB"], False),
        (["status"], False),
        (["status", "--json"], False),
        (["status", "--json", "--watch"], False),
        (["check-config", "/dev/null"], False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_full_disk_is_told_in_a_line_with_what_it_costs(
    server: FakeServer, tmp_path: Path, args: list[str], lost: bool
) -> None:
    blob = tmp_path / "answer.json"
    blob.write_bytes(kpcache(server, "get", "ECC_NIST_P256").stdout)
    asked = len(server.requests)
    done = to_full_disk(server, *[str(blob) if arg == "BLOB" else arg for arg in args])
    reason = b"No space left on device" + (
        b"; this pair is lost: no pair is given out twice" if lost else b""
    )
    assert (done.returncode, done.stderr) == (1, b"kpcache: stdout: " + reason + b"\n")
    assert sum(method.startswith("Generate") for method, _ in server.requests[asked:]) == lost


def test_files_are_kept_when_their_names_cannot_be_told(server: FakeServer, tmp_path: Path) -> None:
    done = to_full_disk(server, "get", "ECC_NIST_P256", "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert b"the pair is not lost: its files are written" in done.stderr
    assert json.loads((tmp_path / "out" / "ecc_nist_p256.json").read_bytes())["KeyId"] == KEY_ARN


def test_with_nothing_to_write_to_it_ends_quietly(server: FakeServer) -> None:
    """Both streams full, or closed: the exit code is all that is left to say."""
    command = f"{sys.executable} -m kpcache status --socket {server.path}"
    for streams, code in ((">/dev/full 2>/dev/full", 1), (">&-", 0)):
        done = subprocess.run(
            ["sh", "-c", f"{command} {streams}"], capture_output=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (code, b"")


def test_quick_commands_do_not_import_what_they_do_not_need() -> None:
    script = (
        "import sys, kpcache.cli.main as m; m.build_parser();"
        "print([n for n in ('rich', 'trio', 'cryptography', 'tomllib', 'asyncio') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=True)
    assert done.stdout.strip() == b"[]"
