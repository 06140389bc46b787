"""Kill -9 of any process under load: clients wait a little at most, and nothing outlives its parent."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kpcache import Client
from tests.system.harness import PATIENCE_S, Daemon, cpu_hogs, pidfd, pools, running, wait_gone

QUICK = "ECC_NIST_P256"


def command_line(pid: int) -> bytes:
    try:
        return Path("/proc", str(pid), "cmdline").read_bytes()
    except OSError:
        return b""


@contextmanager
def load(daemon: Daemon, clients: int = 4) -> Iterator[list[bytes]]:
    """Clients that take pairs of a quick spec all the time; any error of theirs fails the test."""
    taken: list[bytes] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def client_life() -> None:
        try:
            with Client(daemon.socket) as client:
                while not stop.is_set():
                    answer = client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=QUICK)
                    taken.append(answer["PrivateKeyPlaintext"])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=client_life) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield taken
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def wait_replaced(daemon: Daemon) -> float:
    """Seconds until a restarted maker has handed over a pair, as the status tells."""
    started = time.monotonic()
    with daemon.client() as client:
        while time.monotonic() - started < PATIENCE_S:
            workers = client.status()["workers"]
            if any(
                worker["role"] == "maker" and worker["restarts"] and worker["pairs"] for worker in workers
            ):
                return time.monotonic() - started
    raise AssertionError("no replacement has handed over a pair")


@pytest.mark.parametrize("role", ["shard", "maker"])
def test_kill_of_a_worker_costs_clients_a_wait_at_most(tmp_path: Path, role: str) -> None:
    with running(tmp_path, pools(RSA_4096=8, RSA_2048=64, **{QUICK: 256})) as daemon:
        with load(daemon) as taken:
            victim = daemon.workers()[role][0]
            before = len(taken)
            os.kill(victim, signal.SIGKILL)
            took_s = wait_replaced(daemon)
        status = daemon.status()
        assert took_s < 1.0
        assert len(taken) > before
        assert len(set(taken)) == len(taken)
        assert_balanced(status)
        killed = [worker for worker in status["workers"] if worker["restarts"]]
        assert any("signal 9" in worker["reason"] for worker in killed), status["workers"]
        others = [worker for worker in status["workers"] if worker["shard"] != killed[0]["shard"]]
        assert all(worker["restarts"] == 0 for worker in others), "it took more than its own part with it"


def assert_balanced(status: dict[str, Any]) -> None:
    for spec, pool in status["pools"].items():
        spent = sum(pool[place] for place in ("issued", "discarded", "held", "ready", "in_hand"))
        assert pool["generated"] + pool["restored"] == spent, (spec, pool)


def test_a_dead_shards_pairs_are_counted_as_lost(tmp_path: Path) -> None:
    with running(tmp_path, pools(**{QUICK: 256})) as daemon:
        daemon.wait_full()
        held = daemon.status()["pools"][QUICK]["held"]
        with ExitStack() as stack:
            shards = daemon.workers()["shard"]
            fds = [stack.enter_context(pidfd(pid)) for pid in shards]
            for pid in shards:
                os.kill(pid, signal.SIGKILL)
            wait_gone([fd for fd in fds if fd is not None], PATIENCE_S)
        daemon.wait_log("ended (signal 9")
        daemon.wait_full()
        status = daemon.status()
        assert held > 0
        assert status["discarded"][QUICK]["worker_lost"] >= held
        assert_balanced(status)


def test_nothing_outlives_a_killed_daemon(tmp_path: Path) -> None:
    """Not a maker in the idle class either, with an RSA_4096 in the making and both CPUs taken."""
    daemon = Daemon(tmp_path, pools(RSA_4096=64))
    try:
        daemon.wait_log("serves on")
        with cpu_hogs(2), ExitStack() as stack:
            pids = daemon.all_pids()
            assert len(pids) == 5, "the daemon, two shards, two makers"
            fds = [stack.enter_context(pidfd(pid)) for pid in pids]
            os.kill(daemon.process.pid, signal.SIGKILL)
            wait_gone([fd for fd in fds if fd is not None], 1.0)
    finally:
        daemon.kill()


def test_restart_after_a_kill(tmp_path: Path) -> None:
    """A daemon that was killed leaves a socket file and a lock; the next one starts all the same."""
    daemon = Daemon(tmp_path, pools(**{QUICK: 16}))
    try:
        daemon.wait_log("serves on")
        with daemon.client() as client:
            first = client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=QUICK)
    finally:
        daemon.kill()
    with running(tmp_path, pools(**{QUICK: 16})) as daemon, daemon.client() as client:
        opened = client.decrypt(CiphertextBlob=first["PrivateKeyCiphertextBlob"])
        assert opened["Plaintext"] == first["PrivateKeyPlaintext"]
        again = client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=QUICK)
        assert again["PrivateKeyPlaintext"] != first["PrivateKeyPlaintext"]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_and_answers_under_way_are_finished(
    tmp_path: Path, sent: signal.Signals
) -> None:
    """A request that waits for its pair gets it; new connections find nobody; the exit code is 0."""
    with running(tmp_path, pools(RSA_2048=0)) as daemon, daemon.client() as client:
        answers: list[int] = []

        def ask() -> None:
            answer = client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec="RSA_4096", wait_s=5.0)
            answers.append(len(answer["PublicKey"]))

        thread = threading.Thread(target=ask)
        thread.start()
        while not daemon.status()["pools"]["RSA_4096"]["waiting"]:
            pass  # each status is a round trip
        daemon.process.send_signal(sent)
        daemon.wait_log("stopping")
        thread.join()
        assert daemon.process.wait(PATIENCE_S) == 0
    assert answers == [550]


def test_a_stopped_maker_is_found_and_replaced(tmp_path: Path) -> None:
    """A maker that hangs over its order is killed and its work done by another, though nothing died."""
    with running(tmp_path, pools(RSA_2048=8, **{QUICK: 256})) as daemon:
        for pid in daemon.workers()["maker"]:
            os.kill(pid, signal.SIGSTOP)
        daemon.wait_log("hung over an order; it is replaced")
        daemon.wait_full()


def test_a_stop_is_heeded_while_the_workers_start(tmp_path: Path) -> None:
    """With shards that never say a word the daemon is not up for a while; SIGTERM ends it all the same."""
    daemon = Daemon(tmp_path, pools(**{QUICK: 8}))
    try:
        shards: list[int] = []
        while len(shards) < 2:  # they have only begun to load; before its exec a child holds its parent up
            assert daemon.process.poll() is None
            shards = [pid for pid in daemon.all_pids() if b"worker.shard" in command_line(pid)]
        for pid in shards:
            os.kill(pid, signal.SIGSTOP)
        started = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(PATIENCE_S) == 0
        assert time.monotonic() - started < 5.0
    finally:
        daemon.kill()
