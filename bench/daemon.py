"""A real daemon of the bench's own: started by the command, with the pools that a part needs."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Final, cast

import msgpack
import tomli_w

from bench.nest import Nest, cpu_s
from bench.progress import Display
from kpcache import Client
from kpcache.core.specs import MAKEABLE
from kpcache.errors import DaemonUnreachableError

CONTEXT: Final = {"app": "bench"}
KEY_ID: Final = "alias/kpcache"
_START_TIMEOUT_S = 20.0
# A status costs the daemon about as much as two hits, so it is not asked more often than this.
_POLL_S = 0.5


class BenchError(Exception):
    """A figure that would not mean what it says: the bench stops instead of reporting it."""


class Daemon:
    """One daemon. ``pools``: target and low watermark by spec; all others have none."""

    def __init__(
        self,
        nest: Nest,
        name: str,
        pools: Mapping[str, tuple[int, int]],
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        program: list[str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Start it, with these further ``settings`` and variables (``environ``), and wait until it serves,
        before its pools are full.

        ``program``: another one in the place of ``kpcache``."""
        self._nest, self._name = nest, name
        folder = nest.folder / name
        folder.mkdir(mode=0o755)
        self.socket = str(folder / "kpcache.sock")
        config: dict[str, dict[str, Any]] = {
            "daemon": {
                "socket": self.socket,
                "state_dir": str(folder / "state"),
                "runtime_dir": str(folder / "reserve"),
            },
            "pools": {
                spec: dict(zip(("target", "low_water"), pools.get(spec, (0, 0)), strict=True))
                for spec in MAKEABLE
            },
            "metrics": {"listen": ""},
        }
        for table, values in (settings or {}).items():
            config[table] = {**config.get(table, {}), **values}
        path = folder / "kpcache.toml"
        path.write_text(tomli_w.dumps(config))
        self.client = Client(self.socket)
        command = [*(program or [sys.executable, "-m", "kpcache"]), "serve", "--config", str(path)]
        self._process = nest.start(command, log=f"{name}.log", environ=environ)
        self._wait_serving()

    def _wait_serving(self) -> None:
        give_up = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                self.client.ping()
            except DaemonUnreachableError as error:
                if self._process.poll() is not None or time.monotonic() > give_up:
                    log = self._nest.complaint(f"{self._name}.log")
                    raise BenchError(f"the daemon does not start: {log}") from error
                time.sleep(0.05)
            else:
                return

    # --- pools

    def status(self) -> dict[str, Any]:
        return self.client.status()

    def pool(self, spec: str) -> dict[str, int]:
        """One pool's part of the status."""
        return cast(dict[str, int], self.status()["pools"][spec])

    def filled(self, only: str = "") -> float:
        """How full the pools are, or the one of ``only`` is: 1 when all are at their targets."""
        pools = self.status()["pools"]
        shares: list[float] = [
            min((pool["ready"] + pool["held"]) / pool["target"], 1.0)
            for spec, pool in pools.items()
            if pool["target"] and only in ("", spec)
        ]
        return sum(shares) / len(shares)

    def wait_full(self, display: Display | None = None, label: str = "", only: str = "") -> None:
        """Until every pool, or that of ``only``, is at its target. With a display, show how it fills."""
        with nullcontext() if display is None else display.step(label) as step:
            while (filled := self.filled(only)) < 1:
                if step is not None:
                    step.at(filled)
                time.sleep(_POLL_S)

    def generate(self, spec: str) -> object:
        """Take a pair: the hit that all is about."""
        return self.client.generate_data_key_pair(
            KeyId=KEY_ID, KeyPairSpec=cast(Any, spec), EncryptionContext=CONTEXT
        )

    def drain(self, spec: str, count: int) -> None:
        """Take ``count`` pairs. They must be there: ``require_no_dry`` tells afterwards."""
        for _ in range(count):
            self.generate(spec)

    def require_no_dry(self) -> None:
        """Raise ``BenchError`` if any request found its pool dry: what was timed were not all hits."""
        dry = {spec: pool["dry"] for spec, pool in self.status()["pools"].items() if pool["dry"]}
        if dry:
            raise BenchError(f"requests found their pool dry, so the figures are not those of hits: {dry}")

    def raw_answer(self, spec: str) -> bytes:
        """The bytes of one answer, as they come over the socket."""
        request = {"KeyId": KEY_ID, "KeyPairSpec": spec, "EncryptionContext": CONTEXT}
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(self.socket)
            sock.sendall(msgpack.packb([0, 1, "GenerateDataKeyPair", [request]]))
            answer = sock.recv(65536)
        if msgpack.unpackb(answer)[2] is not None:
            raise BenchError("the daemon refused the request that is to be timed")
        return answer

    # --- its processes

    def pids(self) -> dict[str, list[int]]:
        """By role: daemon, shard, maker."""
        pids: dict[str, list[int]] = {"daemon": [self._process.pid], "shard": [], "maker": []}
        for worker in self.status()["workers"]:
            if worker["pid"] is not None:
                pids[worker["role"]].append(worker["pid"])
        return pids

    def cpu_s(self, pids: Mapping[str, list[int]]) -> Counter[str]:
        """CPU seconds so far by role. ``pids``: from before, as asking for them costs CPU time."""
        return Counter({role: sum(cpu_s(pid) for pid in ids) for role, ids in pids.items()})

    def pause_makers(self) -> None:
        """Stop all makers where they are; they make nothing until ``resume_makers``."""
        for pid in self.pids()["maker"]:
            os.kill(pid, signal.SIGSTOP)

    def resume_makers(self) -> None:
        for pid in self.pids()["maker"]:
            os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it before its nest does."""
        self.client.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            raise BenchError("the daemon does not stop") from None
