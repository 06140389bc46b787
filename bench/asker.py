"""One user who asks for pairs at random times.

``python -m bench.asker SOCKET UID SPEC WAIT`` and then either ``RATE SECONDS SEED`` or ``FILE``: a process of
its own, since a user is known by its uid when it connects. It says "ready", begins when it is sent a line,
asks ``RATE`` times a second on average for ``SECONDS``, or at the times in ``FILE``, one a line, whether
answers come or not, and prints JSON: ``asked``, ``got``, ``refused`` by reason, and the ``latencies`` of what
it got in seconds, from when the request was due: one that could not be sent in time counts all the same.
"""

import contextlib
import json
import os
import random
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack

# How long to wait for what is still owed after the last request, beyond its own wait.
_GRACE_S = 3.0


class Asker:
    def __init__(self, path: str, uid: int, spec: str, wait_s: float) -> None:
        if uid != os.geteuid():
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.connect(path)
        self._sock.setblocking(False)
        self._unpacker = msgpack.Unpacker()
        self._params = [{"KeyId": "alias/kpcache", "KeyPairSpec": spec}, {"wait_s": wait_s}]
        self._due: dict[int, float] = {}
        self._unsent = b""
        self.refused: Counter[str] = Counter()
        self.latencies: list[float] = []

    def ask(self, msgid: int, due: float) -> None:
        self._due[msgid] = due
        self._unsent += msgpack.packb([0, msgid, "GenerateDataKeyPair", self._params])
        self._send()

    def _send(self) -> None:
        with contextlib.suppress(BlockingIOError):  # the daemon reads no more until it has answered some
            self._unsent = self._unsent[self._sock.send(self._unsent) :]

    def attend(self, until: float) -> None:
        """Send and receive until then."""
        while (left_s := until - time.monotonic()) > 0:
            wanted = [self._sock] if self._unsent else []
            readable, writable, _ = select.select([self._sock], wanted, [], left_s)
            if writable:
                self._send()
            if readable:
                self._receive()

    def finish(self, wait_s: float) -> None:
        """Wait for what is owed, for so long at most."""
        give_up = time.monotonic() + wait_s + _GRACE_S
        while self._due and time.monotonic() < give_up:
            self.attend(min(give_up, time.monotonic() + 0.05))

    def _receive(self) -> None:
        data = self._sock.recv(1 << 20)
        if not data:
            raise SystemExit("the daemon has closed the connection")
        now = time.monotonic()
        self._unpacker.feed(data)
        for _, msgid, error, _ in self._unpacker:
            due = self._due.pop(msgid)
            if error is None:
                self.latencies.append(now - due)
            else:
                self.refused[error.get("Reason") or error["Code"]] += 1

    def told(self, asked: int) -> dict[str, Any]:
        if self._due:
            self.refused["unanswered"] += len(self._due)
        return {
            "asked": asked,
            "got": len(self.latencies),
            "refused": self.refused,
            "latencies": sorted(self.latencies),
        }


def main() -> None:
    path, uid, spec, wait_s, *when = sys.argv[1:]
    times = _read(*when) if len(when) == 1 else list(_drawn(*when))
    asker = Asker(path, int(uid), spec, float(wait_s))
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.monotonic()
    for msgid, at_s in enumerate(times):
        asker.attend(start + at_s)
        asker.ask(msgid, start + at_s)
    asker.finish(float(wait_s))
    print(json.dumps(asker.told(len(times))))


def _drawn(rate: str, seconds: str, seed: str) -> Iterator[float]:
    rng, at_s = random.Random(int(seed)), 0.0
    while (at_s := at_s + rng.expovariate(float(rate))) < float(seconds):
        yield at_s


def _read(file: str) -> list[float]:
    return [float(line) for line in Path(file).read_text().split()]


if __name__ == "__main__":
    main()
