"""A real Prometheus scrapes a real daemon under load while workers are killed; what it saw is compared with
what the clients counted. For longer than a test may take: python -m tests.system.prometheus_trial SECONDS
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kpcache.errors import NotFoundException, ThrottlingException
from tests.system.harness import PATIENCE_S, Daemon, pools, running
from tests.system.ports import free_port

SPEC = "ECC_NIST_P256"
CLIENTS = 4
REQUEST: Any = {"KeyId": "alias/kpcache", "KeyPairSpec": SPEC}
_EVER = '{__name__=~"kpcache_.+_(total|count|bucket|sum)"}'


class Prometheus:
    """``url`` answers its queries."""

    def __init__(self, folder: Path, target: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        config = folder / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
            f"scrape_configs: [{{job_name: kpcache, static_configs: [{{targets: ['{target}']}}]}}]\n"
        )
        self.process = subprocess.Popen(
            [
                "prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def wait_ready(self) -> None:
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line)
            if "Server is ready to receive web requests" in line:
                threading.Thread(target=self.process.stderr.read, daemon=True).start()
                return
        raise AssertionError(f"Prometheus ended: {''.join(said)}")

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The vector that an expression gives now."""
        words = urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{words}", timeout=PATIENCE_S) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        result: list[dict[str, Any]] = told["data"]["result"]
        return result

    def value(self, query: str) -> float:
        """Of an expression that gives one number; NaN if there is none yet."""
        result = self.ask(query)
        return float(result[0]["value"][1]) if result else float("nan")

    def wait_for(self, query: str, value: float) -> None:
        """Until a scrape has brought it: the first comes seconds after the start."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.value(query)) != value:
            assert time.monotonic() < deadline, f"{query} is {found}, not {value}"
            time.sleep(0.05)


@contextlib.contextmanager
def scraping(folder: Path, target: str) -> Iterator[Prometheus]:
    folder.mkdir()
    prometheus = Prometheus(folder, target)
    try:
        prometheus.wait_ready()
        yield prometheus
    finally:
        prometheus.process.terminate()
        prometheus.process.wait(PATIENCE_S)
        if prometheus.process.stderr is not None:
            prometheus.process.stderr.close()


@dataclass
class Counted:
    """What the clients saw; ``issued`` are the moments, in Unix seconds."""

    issued: list[float] = field(default_factory=list)
    dry: int = 0
    refused: int = 0

    def rate(self, since: float, until: float) -> float:
        times = sorted(self.issued)
        return (bisect_left(times, until) - bisect_left(times, since)) / (until - since)


def load(daemon: Daemon, until: threading.Event, counted: Counted) -> None:
    """One client, which asks 60 times a second at most, and now and then for a key that is not there."""
    with daemon.client() as client:
        for number in range(10**9):
            if until.wait(0.015):
                return
            try:
                client.generate_data_key_pair(**REQUEST)
                counted.issued.append(time.time())
            except ThrottlingException:
                counted.dry += 1
            if number % 10 == 0:
                with contextlib.suppress(NotFoundException):
                    client.generate_data_key_pair(KeyId="alias/none", KeyPairSpec=SPEC)
                counted.refused += 1


def kill_a_worker_of_each_role(daemon: Daemon) -> None:
    for pids in daemon.workers().values():
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[0], signal.SIGKILL)


def trial(folder: Path, seconds: float, kills: int) -> dict[str, float]:
    """Raises ``AssertionError`` where Prometheus and the clients differ, or a counter fell."""
    target = f"127.0.0.1:{free_port()}"
    config = pools(**{SPEC: 400}) + f'[metrics]\nlisten = "{target}"\n'
    with running(folder, config) as daemon, scraping(folder / "prometheus", target) as prometheus:
        daemon.wait_full()
        prometheus.wait_for("sum(up)", 1)
        counted, over = Counted(), threading.Event()
        clients = [threading.Thread(target=load, args=(daemon, over, counted)) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        began = time.time()
        try:
            for _ in range(kills):
                time.sleep(seconds / (kills + 1))  # of load: nothing is waited for
                kill_a_worker_of_each_role(daemon)
            time.sleep(seconds / (kills + 1))
            window_s = max(int(seconds) - 1, 1)
            now = time.time()
            measured = prometheus.value(f'rate(kpcache_pairs_issued_total{{spec="{SPEC}"}}[{window_s}s])')
            real = counted.rate(now - window_s, now)
        finally:
            over.set()
            for client in clients:
                client.join()
        return compare(prometheus, counted, int(time.time() - began) + 60, measured, real)


def compare(
    prometheus: Prometheus, counted: Counted, back_s: int, measured: float, real: float
) -> dict[str, float]:
    issued = f'kpcache_pairs_issued_total{{spec="{SPEC}"}}'
    prometheus.wait_for(issued, len(counted.issued))
    durations = f'kpcache_request_duration_seconds_count{{operation="GenerateDataKeyPair",spec="{SPEC}"'
    seen = {
        "issued": len(counted.issued),
        "answered": prometheus.value(f'sum({durations},outcome=~"hit|waited"}})'),
        "dry": prometheus.value(f'sum({durations},outcome="dry"}}) or vector(0)'),
        "refused": prometheus.value(f'sum({durations},outcome="refused"}})'),
        "worker_deaths": prometheus.value("sum(kpcache_worker_deaths_total)"),
        "scrapes": prometheus.value(f"count_over_time(up[{back_s}s])"),
        "scrapes_failed": prometheus.value(f"sum_over_time((1 - up)[{back_s}s:200ms])"),
        "rate": measured,
        "rate_of_clients": real,
    }
    assert seen["answered"] == seen["issued"], seen
    assert (seen["dry"], seen["refused"]) == (counted.dry, counted.refused), seen
    assert 0.85 < measured / real < 1.15, seen
    series = [
        (each["metric"], [float(value) for _, value in each["values"]])
        for each in prometheus.ask(f"{_EVER}[{back_s}s]")
    ]
    fell = [labels for labels, values in series if values != sorted(values)]
    assert not fell, fell
    assert sum(values[-1] > values[0] for _, values in series) > 20  # that could have fallen
    return seen


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="kpcache-test-") as place:
        length = float(sys.argv[1])
        print(json.dumps(trial(Path(place), length, kills=max(int(length // 10), 1)), indent=2))
