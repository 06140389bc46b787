"""Who may ask, with a real daemon and processes of other users: rules, groups, and the admin socket's own."""

import grp
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kpcache.client.connection import Connection
from kpcache.core.operations import OPERATIONS
from kpcache.errors import KMSInvalidStateException, from_wire
from tests.strangers import connected_by
from tests.system.harness import PATIENCE_S, Daemon, pools, running
from tests.system.test_admin import Admin

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be other users")

SPEC = "ECC_NIST_EDWARDS25519"
# No user or group of this machine has these numbers.
USER, STRANGER, GROUP = 23451, 23452, 23459
DENIED = "AccessDeniedException"
RULES = f"""
[[access]]
uids = [{USER}]
specs = ["{SPEC}"]
key_ids = ["alias/kpcache"]
[[access]]
gids = [{GROUP}]
operations = ["Encrypt"]
[[access]]
operations = ["DescribeKey"]
"""


@contextmanager
def serving(config: str) -> Iterator[Daemon]:
    """A daemon whose sockets lie where other users can get to; pytest's folders are for root alone."""
    with tempfile.TemporaryDirectory(prefix="access-of-a-test-") as name:
        os.chmod(name, 0o755)
        with running(Path(name), f'socket_mode = "0666"\n{config}{pools(**{SPEC: 50})}') as daemon:
            yield daemon


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with serving(RULES) as daemon, Admin(daemon) as admin:
        admin.call("CreateKey", AliasName="alias/other")
        yield daemon


class Speaker:
    """Speaks on a connection, whoever made it."""

    def __init__(self, sock: socket.socket) -> None:
        self._connection = Connection(sock, "a test's")

    def ask(self, method: str, **members: Any) -> dict[str, Any]:
        """Raises ``KpcacheError``."""
        error, result = self._connection.call(method, [members], PATIENCE_S)
        if error is not None:
            raise from_wire(error)
        answer: dict[str, Any] = result
        return answer

    def code(self, method: str, **members: Any) -> str:
        """Of the refusal, or empty."""
        error, _ = self._connection.call(method, [members], PATIENCE_S)
        return "" if error is None else str(error["Code"])


def requests(daemon: Daemon, alias: str) -> dict[str, dict[str, Any]]:
    """One of each operation, with this key."""
    with Admin(daemon) as admin:
        blob = admin.ask_as_client("Encrypt", KeyId=alias, Plaintext=b"x")["CiphertextBlob"]
    pair = {"KeyId": alias, "KeyPairSpec": SPEC}
    return {
        "GenerateDataKeyPair": pair,
        "GenerateDataKeyPairWithoutPlaintext": pair,
        "Encrypt": {"KeyId": alias, "Plaintext": b"x"},
        "Decrypt": {"CiphertextBlob": blob},
        "ReEncrypt": {"CiphertextBlob": blob, "DestinationKeyId": "alias/kpcache"},
        "DescribeKey": {"KeyId": alias},
    }


def test_a_user_may_do_what_a_rule_says_and_nothing_else(daemon: Daemon) -> None:
    mine, other = requests(daemon, "alias/kpcache"), requests(daemon, "alias/other")
    with connected_by(daemon.socket, USER) as sock:
        user = Speaker(sock)
        assert {method: user.code(method, **mine[method]) for method in OPERATIONS} == dict.fromkeys(
            OPERATIONS, ""
        )
        assert {method: user.code(method, **other[method]) for method in OPERATIONS} == {
            **dict.fromkeys(OPERATIONS, DENIED), "DescribeKey": "",
        }  # fmt: skip
        wrong_spec = {"KeyId": "alias/kpcache", "KeyPairSpec": "RSA_2048", "DryRun": True}
        assert user.code("GenerateDataKeyPair", **wrong_spec) == DENIED
        assert (
            user.code("GenerateDataKeyPair", **{**wrong_spec, "KeyPairSpec": SPEC})
            == "DryRunOperationException"
        )


@pytest.mark.parametrize("uid", [STRANGER, 0])
def test_whoever_no_rule_names_is_refused_root_too(daemon: Daemon, uid: int) -> None:
    asked = requests(daemon, "alias/kpcache")
    with connected_by(daemon.socket, uid) as sock:
        found = {method: Speaker(sock).code(method, **asked[method]) for method in OPERATIONS}
    assert found == {**dict.fromkeys(OPERATIONS, DENIED), "DescribeKey": ""}
    assert daemon.status()["issuing"]  # which we, as root without a rule, can still ask


def test_a_supplementary_group_counts_as_it_was_when_connecting(daemon: Daemon) -> None:
    """The program that connects leaves the group at once; and one in no group stays out."""
    for groups, gid, code in (((7, GROUP), 23450, ""), ((), GROUP, ""), ((7,), 23450, DENIED)):
        with connected_by(daemon.socket, STRANGER, gid, groups) as sock:
            assert Speaker(sock).code("Encrypt", KeyId="alias/other", Plaintext=b"x") == code


def test_a_process_that_ended_before_it_was_accepted_is_refused(daemon: Daemon) -> None:
    """Its descriptor is in other hands, here ours."""
    kernel = tuple(int(part) for part in os.uname().release.split(".")[:2])
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        with connected_by(daemon.socket, USER, ends=True) as sock:
            daemon.process.send_signal(signal.SIGCONT)
            speaker = Speaker(sock)
            code = speaker.code("DescribeKey", KeyId="alias/kpcache")
            who = speaker.ask("kpcache.WhoAmI")
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    assert who["Uid"] == USER
    if kernel < (6, 5):
        assert code == ""
    else:
        assert (code, who["Allowed"]) == (DENIED, [])
        assert "had ended" in who["Note"]


def test_an_alias_that_is_moved_takes_the_right_along(daemon: Daemon) -> None:
    with Admin(daemon) as admin, connected_by(daemon.socket, USER) as sock:
        user = Speaker(sock)
        key_id = user.ask("DescribeKey", KeyId="alias/kpcache")["KeyMetadata"]["KeyId"]
        other = user.ask("DescribeKey", KeyId="alias/other")["KeyMetadata"]["KeyId"]
        for target, codes in ((other, [DENIED, ""]), (key_id, ["", DENIED])):
            admin.call("UpdateAlias", AliasName="alias/kpcache", TargetKeyId=target)
            assert [user.code("Encrypt", KeyId=key, Plaintext=b"x") for key in (key_id, other)] == codes


def test_a_flood_of_refusals_is_one_line_of_the_log(daemon: Daemon) -> None:
    with connected_by(daemon.socket, 23499) as sock:
        speaker = Speaker(sock)
        for number in range(500):
            assert speaker.code("Encrypt", KeyId=f"alias/{number}\n", Plaintext=b"x") == DENIED
    assert daemon.wait_log("23499").endswith("Encrypt with key 'alias/0\\n'")
    assert len([line for line in daemon.log if "23499" in line]) == 1


# Becomes that user after the start, which needs root's right to read this interpreter's files.
WHOAMI = """
import io, locale, os, shutil, sys
import kpcache.cli.main, kpcache.cli.tables, kpcache.cli.whoami_view, kpcache.client.client
os.setgroups([int(sys.argv[2])])
os.setgid(23450)
os.setuid(int(sys.argv[1]))
sys.exit(kpcache.cli.main.main(["whoami", *sys.argv[3:]]))
"""


def whoami(daemon: Daemon, uid: int, *args: str) -> str:
    command = [sys.executable, "-c", WHOAMI, str(uid), str(GROUP), "--socket", daemon.socket, *args]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=PATIENCE_S, cwd="/"
    ).stdout


def test_whoami_tells_who_one_is_what_one_may_and_where_administration_is_closed(daemon: Daemon) -> None:
    told = json.loads(whoami(daemon, STRANGER, "--json"))
    assert told.pop("Pid") > 0
    assert told == {
        "Uid": STRANGER, "Gid": 23450, "Groups": [23450, GROUP], "Administrator": False, "RulesInForce": True,
        "Allowed": [
            {"Operation": "Encrypt", "KeyIds": "*"}, {"Operation": "DescribeKey", "KeyIds": "*"},
        ],
        "Note": "", "Socket": daemon.socket, "AdminSocket": daemon.admin_socket,
        "AdminSocketClosed": "Permission denied",
    }  # fmt: skip
    shown = whoami(daemon, USER)
    assert f"uid {USER}, gid 23450, groups 23450, {GROUP}" in shown
    assert f"admin socket: {daemon.admin_socket} is not open to you (Permission denied)" in shown
    assert "[[access]] rules are in force; you may do this, and nothing else" in shown
    assert [line.split() for line in shown.splitlines() if line.startswith("GenerateDataKeyPair ")] == [
        ["GenerateDataKeyPair", SPEC, "alias/kpcache"]
    ]
    assert f"admin socket: {daemon.admin_socket} is open to you" in whoami(daemon, 0)


def test_members_of_its_group_administrate_and_the_log_names_them() -> None:
    group = next(each for each in grp.getgrall() if each.gr_gid not in (0, 65534))
    config = f'admin_socket_mode = "0660"\nadmin_socket_group = "{group.gr_name}"\n{RULES}'
    with serving(config) as daemon:
        status = os.stat(daemon.admin_socket)
        assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o660, 0, group.gr_gid)
        with connected_by(daemon.admin_socket, STRANGER, groups=(group.gr_gid,)) as sock:
            member = Speaker(sock)
            made = member.ask("kpcache.CreateKey")["KeyMetadata"]["Arn"]
            assert member.code("GenerateDataKeyPair", KeyId=made, KeyPairSpec=SPEC) == ""
            assert member.ask("kpcache.WhoAmI")["Administrator"]
        assert f"kpcache.CreateKey by uid {STRANGER}, pid " in daemon.wait_log(made)
        with pytest.raises(PermissionError), connected_by(daemon.admin_socket, USER):
            pass


def test_a_reload_has_other_rules_in_force_on_open_connections_and_a_bad_one_changes_nothing() -> None:
    with serving(RULES) as daemon, Admin(daemon) as admin, connected_by(daemon.socket, STRANGER) as sock:
        stranger, config = Speaker(sock), daemon.folder / "kpcache.toml"
        encrypt: dict[str, Any] = {"KeyId": "alias/kpcache", "Plaintext": b"x"}
        assert stranger.code("Encrypt", **encrypt) == DENIED
        before = config.read_text()
        for uid, code in (("no-such-user", DENIED), (STRANGER, ""), (USER, DENIED)):
            config.write_text(before.replace(f"uids = [{USER}]", f"uids = {json.dumps([uid])}"))
            if isinstance(uid, str):
                with pytest.raises(KMSInvalidStateException, match="there is no user 'no-such-user' on this"):
                    admin.call("Reload")
            else:
                assert admin.call("Reload")["Changed"] == ["access"]
            assert stranger.code("Encrypt", **encrypt) == code


@pytest.mark.parametrize("command", [["serve", "--config"], ["check-config"]])
def test_a_user_who_is_not_there_keeps_the_daemon_from_starting(tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "kpcache.toml"
    path.write_text(f'[daemon]\nstate_dir = "{tmp_path}/state"\n[[access]]\nuids = ["no-such-user"]\n')
    done = subprocess.run(
        [sys.executable, "-m", "kpcache", *command, str(path)],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 2
    assert "access[0].uids: there is no user 'no-such-user' on this machine: correct the name" in done.stderr
    assert not (tmp_path / "state").exists()


def test_what_check_config_prints_loads_again(tmp_path: Path) -> None:
    path = tmp_path / "kpcache.toml"
    path.write_text(
        '[daemon]\nadmin_socket_mode = "0660"\nadmin_socket_group = "root"\n'
        '[[access]]\nuids = ["root", 7]\nspecs = ["RSA_2048"]\n[[access]]\nkey_ids = ["alias/a"]\n'
    )
    printed = []
    for _ in range(2):
        command = [sys.executable, "-m", "kpcache", "check-config", str(path)]
        printed.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        path.write_text(printed[-1])
    assert printed[0] == printed[1]
    assert printed[0].count("[[access]]") == 2
    assert 'admin_socket_group = "root"' in printed[0]
