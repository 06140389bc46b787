"""Every key of the configuration does what it says, from the file to what a user sees of it.

``EXERCISED`` names a test for each key; a key that nobody named there fails the last test of this file.
"""

import ast
import grp
import os
import select
import socket
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgpack
import pytest

from kpcache.core.config_access import AccessSettings
from kpcache.core.settings import LimitSettings
from kpcache.errors import ThrottlingException
from tests.system.harness import PATIENCE_S, Daemon, pools, running

ROOT = Path(__file__).parents[2]
QUICK: Any = {"KeyId": "alias/kpcache", "KeyPairSpec": "ECC_NIST_P256"}
SLOW: Any = {"KeyId": "alias/kpcache", "KeyPairSpec": "RSA_4096"}


def connect(daemon: Daemon) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE_S)
    sock.connect(daemon.socket)
    return sock


def ask(sock: socket.socket, msgid: int, method: str, *params: object) -> None:
    sock.sendall(msgpack.packb([0, msgid, method, list(params)]))


def answers(sock: socket.socket, count: int) -> dict[int, tuple[Any, Any]]:
    """So many answers, by their number; less if the connection ends."""
    unpacker = msgpack.Unpacker()
    found: dict[int, tuple[Any, Any]] = {}
    while len(found) < count and (data := sock.recv(65536)):
        unpacker.feed(data)
        found.update({msgid: (error, result) for _, msgid, error, result in unpacker})
    return found


def serve(config: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """A daemon that is expected not to start."""
    path = folder / "kpcache.toml"
    path.write_text(config)
    return subprocess.run(
        [sys.executable, "-m", "kpcache", "serve", "--config", str(path)],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip


def test_the_socket_has_its_mode_and_group(tmp_path: Path) -> None:
    groups = [0, *os.getgroups()] if os.geteuid() else [each.gr_gid for each in grp.getgrall()]
    group = grp.getgrgid(next(gid for gid in groups if gid != os.getegid()))
    config = f'socket_mode = "0622"\nsocket_group = "{group.gr_name}"\nready_level = "2%"\n'
    with running(tmp_path, config + pools(ECC_NIST_P256=5000)) as daemon:
        status = os.stat(daemon.socket)
        assert (status.st_mode & 0o777, status.st_gid) == (0o622, group.gr_gid)
        assert {"keyring.json", "ledger.db"} <= {path.name for path in daemon.state_dir.iterdir()}
        # Ready long before it is full.
        while not (told := daemon.status())["ready"]:
            assert not told["full"]
        assert told["pools"]["ECC_NIST_P256"]["low_water"] == 1250
        assert told["ready_level"] == "2%"
        assert not told["full"]


def test_there_are_as_many_workers_as_were_asked_for_in_their_scheduling_class(tmp_path: Path) -> None:
    config = '[workers]\nshards = 1\nmakers = 3\nscheduling = "batch"\n' + pools()
    with running(tmp_path, config) as daemon:
        workers = daemon.workers()
        assert (len(workers["shard"]), len(workers["maker"])) == (1, 3)
        assert {os.sched_getscheduler(pid) for pid in workers["maker"]} == {os.SCHED_BATCH}


def test_a_maker_is_replaced_after_so_long(tmp_path: Path) -> None:
    config = "[workers]\nshards = 1\nmakers = 1\nmaker_max_age_s = 1\n" + pools()
    with running(tmp_path, config) as daemon, daemon.client() as client:
        (first,) = daemon.workers()["maker"]
        while daemon.workers()["maker"] in ([first], []):
            client.generate_data_key_pair(**QUICK, wait_s=5)
        told = next(each for each in client.status()["workers"] if each["role"] == "maker")
        assert told["restarts"] >= 1
        assert told["state"] in ("up", "starting")


def test_makers_keep_to_their_share_of_the_cpu(tmp_path: Path) -> None:
    """With a hundredth of two CPUs, a first pair is paid off for seconds before the next may be made."""
    config = "[workers]\nmakers = 1\nshards = 1\n[refill]\nmax_cpu_percent = 1\n"
    with running(tmp_path, config + pools(RSA_2048=100).replace("low_water = 25", "low_water = 0")) as daemon:
        while not (told := daemon.status())["refill"]["holding_back"]:
            assert told["pools"]["RSA_2048"]["generated"] < 100


def test_a_dry_pool_is_waited_for_or_not(tmp_path: Path) -> None:
    for on_dry in ("fail", "wait"):
        folder = tmp_path / on_dry
        folder.mkdir()
        config = f'[requests]\non_dry = "{on_dry}"\nwait_timeout_s = {PATIENCE_S}\n' + pools()
        with running(folder, config) as daemon, daemon.client(timeout_s=2 * PATIENCE_S) as client:
            if on_dry == "wait":
                client.generate_data_key_pair(**QUICK)
            else:
                with pytest.raises(ThrottlingException) as caught:
                    client.generate_data_key_pair(**QUICK)
                assert caught.value.reason == "pool_dry"


def test_nobody_waits_longer_than_the_most(tmp_path: Path) -> None:
    """A pair that takes most of a second is not to be had within a tenth, whatever the caller would wait."""
    with (
        running(tmp_path, "[requests]\nwait_timeout_s = 0.1\n" + pools()) as daemon,
        daemon.client() as client,
    ):
        assert client.ping()["MaxWaitSeconds"] == 0.1
        with pytest.raises(ThrottlingException) as caught:
            client.generate_data_key_pair(**SLOW, wait_s=PATIENCE_S)
        assert caught.value.reason == "pool_dry"


def test_the_limits_of_connections_and_messages(tmp_path: Path) -> None:
    limits = (
        "max_connections = 5\nmax_connections_per_uid = 4\nmax_in_flight_per_connection = 2\n"
        "max_message_bytes = 20000\nmessage_timeout_s = 0.2\n"
    )
    with running(tmp_path, f"[requests]\nwait_timeout_s = 30\n{limits}" + pools()) as daemon:
        first, *others = (connect(daemon) for _ in range(4))
        for number, sock in enumerate((first, *others)):
            ask(sock, number, "kpcache.Ping", {})
            pong = answers(sock, 1)[number][1]
        assert (pong["MaxMessageBytes"], pong["MaxInFlight"]) == (20000, 2)
        assert daemon.status()["connections"] == 4  # one of them is the asker's: the first had to go
        assert first.recv(1) == b""
        # Two are in flight, which wait for a pair; a third is not read until one is answered.
        busy, slow, large = others
        for number in (1, 2):
            ask(busy, number, "GenerateDataKeyPair", SLOW, {"wait_s": 30})
        ask(busy, 3, "kpcache.Ping", {})
        assert next(iter(answers(busy, 1))) in (1, 2)
        slow.sendall(msgpack.packb([0, 1, "kpcache.Ping", [{}]])[:-1])
        assert slow.recv(1) == b""
        large.sendall(msgpack.packb([0, 1, "Encrypt", [{"KeyId": "x" * 20000}]]))
        error, _ = answers(large, 1).get(1, ({"Message": "20000"}, None))
        assert "20000" in error["Message"]
        for sock in (first, *others):
            sock.close()


def test_the_cap_of_all_connections_is_for_all_users_together(tmp_path: Path) -> None:
    with running(tmp_path, "[requests]\nmax_connections = 2\n" + pools()) as daemon:
        oldest, *others = (connect(daemon) for _ in range(3))
        ready, _, _ = select.select([oldest], [], [], PATIENCE_S)
        assert ready == [oldest]
        assert oldest.recv(1) == b""
        for sock in (oldest, *others):
            sock.close()


def test_a_limit_is_kept_to_for_its_user_and_spec(tmp_path: Path) -> None:
    limited: Any = {"KeyId": "alias/kpcache", "KeyPairSpec": "ECC_NIST_P384"}
    config = (
        f"[requests]\nwait_timeout_s = {PATIENCE_S}\n"
        + pools()
        + (
            f'[[limits]]\nuid = {os.getuid()}\nspec = "ECC_NIST_P384"\nrate_per_s = 0.001\nburst = 2\n'
            f"[[limits]]\nuid = {os.getuid() + 1}\nrate_per_s = 0.001\nburst = 1\n"
        )
    )
    with running(tmp_path, config) as daemon, daemon.client(timeout_s=2 * PATIENCE_S) as client:
        for _ in range(2):
            client.generate_data_key_pair(**limited)
        with pytest.raises(ThrottlingException) as caught:
            client.generate_data_key_pair(**limited)
        assert caught.value.reason == "rate_limited"
        client.generate_data_key_pair(**QUICK)


def test_a_keyring_is_never_made_where_none_is_to_be(tmp_path: Path) -> None:
    config = (
        f'[daemon]\nsocket = "{tmp_path}/run/kpcache.sock"\nstate_dir = "{tmp_path}/state"\n'
        f'runtime_dir = "{tmp_path}/reserve"\n[keyring]\ncreate = "never"\n'
    )
    done = serve(config, tmp_path)
    assert done.returncode == 2
    assert "keyring.create" in done.stderr
    assert not (tmp_path / "state" / "keyring.json").exists()


def test_the_first_key_has_the_alias_that_was_asked_for(tmp_path: Path) -> None:
    with running(tmp_path, '[keyring]\ndefault_alias = "alias/ours"\n' + pools()) as daemon:
        with daemon.client() as client:
            answer = client.generate_data_key_pair(KeyId="alias/ours", KeyPairSpec="ECC_NIST_P256")
        assert answer["KeyId"] == daemon.status()["keyring"]["default_key_arn"]


def test_a_passphrase_in_a_file_seals_the_keyring(tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("not a phrase of anybody's\n")
    secret.chmod(0o600)
    config = f'[keyring]\nunlock = "passphrase-file"\npassphrase_file = "{secret}"\n' + pools()
    with running(tmp_path, config) as daemon:
        assert daemon.status()["keyring"]["sealed"] == "passphrase-file"
        arn = daemon.status()["keyring"]["default_key_arn"]
        assert arn.encode() not in (daemon.state_dir / "keyring.json").read_bytes()


# A test of each key, by the file that it is in; pools.* are for every spec alike.
EXERCISED: dict[str, dict[str, tuple[str, ...]]] = {
    "system/test_knobs.py": {
        "test_the_socket_has_its_mode_and_group": (
            "daemon.socket", "daemon.socket_mode", "daemon.socket_group", "daemon.state_dir",
            "daemon.ready_level",
        ),
        "test_there_are_as_many_workers_as_were_asked_for_in_their_scheduling_class": (
            "workers.shards", "workers.makers", "workers.scheduling",
        ),
        "test_a_maker_is_replaced_after_so_long": ("workers.maker_max_age_s",),
        "test_makers_keep_to_their_share_of_the_cpu": (
            "refill.max_cpu_percent", "pools.target", "pools.low_water",
        ),
        "test_a_dry_pool_is_waited_for_or_not": ("requests.on_dry",),
        "test_nobody_waits_longer_than_the_most": ("requests.wait_timeout_s",),
        "test_the_limits_of_connections_and_messages": (
            "requests.max_connections_per_uid", "requests.max_in_flight_per_connection",
            "requests.max_message_bytes", "requests.message_timeout_s",
        ),
        "test_the_cap_of_all_connections_is_for_all_users_together": ("requests.max_connections",),
        "test_a_limit_is_kept_to_for_its_user_and_spec": (
            "limits.uid", "limits.spec", "limits.rate_per_s", "limits.burst",
        ),
        "test_a_keyring_is_never_made_where_none_is_to_be": ("keyring.create",),
        "test_the_first_key_has_the_alias_that_was_asked_for": ("keyring.default_alias",),
        "test_a_passphrase_in_a_file_seals_the_keyring": ("keyring.unlock", "keyring.passphrase_file"),
    },
    "system/test_reload.py": {
        "test_the_log_level_is_turned_up_and_down_again": ("daemon.log_level",),
    },
    "system/test_copied.py": {
        "test_makers_are_replaced_after_so_many_keys": ("workers.maker_max_keys",),
        "test_no_pair_from_before_a_copy_is_given_out_after_it": ("clone_guard.vmclock",),
    },
    "system/test_access_rules.py": {
        "test_a_user_may_do_what_a_rule_says_and_nothing_else": (
            "access.uids", "access.operations", "access.specs", "access.key_ids",
        ),
        "test_a_supplementary_group_counts_as_it_was_when_connecting": ("access.gids",),
        "test_members_of_its_group_administrate_and_the_log_names_them": (
            "daemon.admin_socket_mode", "daemon.admin_socket_group",
        ),
    },
    "system/test_reserve.py": {
        "test_on_a_disk_there_is_no_reserve_and_the_status_says_why": ("daemon.runtime_dir",),
    },
    "system/test_ledger_disk.py": {
        "test_a_full_disk_stops_new_pairs_only_and_is_over_when_there_is_room": ("ledger.when_unavailable",),
    },
    "system/test_pool_rules.py": {
        "test_pairs_beyond_their_age_are_burnt_and_replaced": ("pools.max_age_s",),
        "test_a_greedy_user_leaves_pairs_for_those_who_ask_for_few": ("requests.keep_back_percent",),
    },
    "daemon/test_pooling.py": {
        "test_a_smaller_chance_to_be_dry_is_a_larger_target": ("refill.dry_chance",),
        "test_all_adaptive_targets_together_keep_to_the_most_pairs_and_memory": (
            "refill.max_pairs", "refill.max_memory_mib",
        ),
        "test_an_adaptive_target_stays_between_its_least_and_its_most": ("pools.min", "pools.max"),
        "test_pressure_is_heeded_or_not": ("refill.heed_pressure",),
    },
    "daemon/test_generation.py": {
        "test_the_kernels_own_log_is_read_from_its_end_by_those_that_know_the_generation": (
            "clone_guard.kernel_log",
        ),
    },
    "core/test_config.py": {
        "test_what_is_wrong_is_refused_with_the_place_and_the_cure": ("aws.enabled", "aws.keys"),
    },
    "system/test_metrics_http.py": {
        "test_a_scrape_and_the_probes_of_a_daemon_that_serves": ("metrics.listen", "metrics.hosts"),
    },
}  # fmt: skip


def keys() -> set[str]:
    """Every key that the daemon knows; the explained file shows all but those of lists of tables and of
    adaptive pools."""
    shown = tomllib.loads((ROOT / "config" / "kpcache.toml").read_text())
    pools = {
        "pools.min",
        "pools.max",
        *(f"pools.{key}" for row in shown.pop("pools").values() for key in row),
    }
    limits = {f"limits.{each.name}" for each in fields(LimitSettings)}
    limits |= {f"access.{each.name}" for each in fields(AccessSettings)}
    return pools | limits | {f"{table}.{key}" for table, row in shown.items() for key in row}


def test_every_key_is_exercised_by_a_test_that_exists() -> None:
    named = [key for tests in EXERCISED.values() for each in tests.values() for key in each]
    assert sorted(named) == sorted(keys())
    for file, tests in EXERCISED.items():
        tree = ast.parse((ROOT / "tests" / file).read_text())
        there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert tests.keys() <= there, file
