"""The real daemon, asked over HTTP as a scraper and a prober ask it, from its first moment to its last."""

import http.client
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes import pack_request
from tests.system.harness import PATIENCE_S, Daemon, pools, running
from tests.system.ports import free_port

SPEC = "ECC_NIST_P256"
PATHS = ("/metrics", "/livez", "/readyz")


def listen(where: str) -> str:
    return f'[metrics]\nlisten = "{where}"\n'


class UnixConnection(http.client.HTTPConnection):
    """As ``curl --unix-socket`` asks."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(self._path))


@contextmanager
def asking(where: str) -> Iterator[http.client.HTTPConnection]:
    connection: http.client.HTTPConnection
    if where.startswith("unix:"):
        connection = UnixConnection(Path(where.removeprefix("unix:")))
    else:
        host, _, port = where.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)
    try:
        yield connection
    finally:
        connection.close()


def get(connection: http.client.HTTPConnection, path: str, **headers: str) -> tuple[int, str]:
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    return response.status, response.read().decode()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_scrape_and_the_probes_of_a_daemon_that_serves(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "metrics.sock"
    where = f"unix:{path}" if kind == "unix" else f"127.0.0.1:{free_port()}"
    config = pools(**{SPEC: 16}) + listen(where) + 'hosts = ["scrape.example"]\n'
    with running(tmp_path, config) as daemon, asking(where) as connection:
        daemon.wait_log("metrics at http://")
        daemon.wait_full()
        status, text = get(connection, "/metrics")
        assert (status, "\nkpcache_ready 1.0\n" in text) == (200, True)
        assert get(connection, "/livez") == (200, "ok\n")
        assert get(connection, "/readyz") == (200, "ok\n")
        assert get(connection, "/metrics", Host="evil.example")[0] == 421
        assert get(connection, "/metrics", Host="scrape.example:9743")[0] == 200
        if kind == "unix":
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert not path.exists()


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="NOT TESTED: promtool is not installed (Debian: prometheus)"
)
def test_prometheus_own_linter_finds_nothing_in_a_scrape(tmp_path: Path) -> None:
    where = f"127.0.0.1:{free_port()}"
    with running(tmp_path, pools(**{SPEC: 4}) + listen(where)) as daemon, asking(where) as connection:
        with daemon.client() as client:
            client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=SPEC)
        text = get(connection, "/metrics")[1]
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_a_port_that_is_taken_is_a_warning_and_clients_are_served(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        where = f"127.0.0.1:{other.getsockname()[1]}"
        with running(tmp_path, pools(**{SPEC: 4}) + listen(where)) as daemon:
            assert "a port that is free" in daemon.wait_log("no metrics are served: metrics.listen: cannot")
            with daemon.client() as client:
                assert client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=SPEC)


def test_it_lives_but_is_not_ready_before_clients_can_connect(tmp_path: Path) -> None:
    where = f"127.0.0.1:{free_port()}"
    makerless = [sys.executable, str(Path(__file__).with_name("makerless_daemon.py"))]
    daemon = Daemon(tmp_path, pools() + listen(where), makerless)
    try:
        daemon.wait_log("metrics at http://")
        with asking(where) as connection:
            assert get(connection, "/livez") == (200, "ok\n")
            status, why = get(connection, "/readyz")
            assert (status, why.partition(":")[0]) == (503, "starting")
            assert get(connection, "/metrics")[0] == 200
            assert daemon.stop() == 0
    finally:
        daemon.kill()


def test_it_answers_while_it_drains(tmp_path: Path) -> None:
    where = f"127.0.0.1:{free_port()}"
    long = "[requests]\nwait_timeout_s = 60\nmessage_timeout_s = 60\n"
    with running(tmp_path, pools(**{SPEC: 4}) + long + listen(where)) as daemon, asking(where) as connection:
        daemon.wait_full()
        assert get(connection, "/readyz") == (200, "ok\n")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(daemon.socket)
            client.setblocking(False)
            pings = pack_request(1, "kpcache.Ping") * 1000
            # Once the daemon reads no more from a client that takes no answers, it owes it some.
            while select.select([], [client], [], 0.5)[1]:
                client.send(pings)
            os.kill(daemon.process.pid, signal.SIGTERM)
            daemon.wait_log("stopping")
            status, why = get(connection, "/readyz")
            assert (status, why.partition(":")[0]) == (503, "draining")
            assert get(connection, "/livez") == (200, "ok\n")
            assert get(connection, "/metrics")[0] == 200
        assert daemon.process.wait(PATIENCE_S) == 0
