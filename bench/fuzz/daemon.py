"""The daemon that is fuzzed over its socket, and what is watched of it: memory, log, a good client."""

import threading
import time
from collections import Counter
from typing import Any, Final

from bench.daemon import KEY_ID, Daemon
from bench.fuzz.campaign import Memory, rss
from bench.fuzz.words import CHEAP_SPEC, Words
from bench.nest import Nest
from kpcache import Client
from kpcache.errors import KpcacheError

# Of a spec that no case asks for: what the good client gets does not depend on what the fuzzer leaves.
GOOD_SPEC: Final = "ECC_NIST_P384"
_POOLS = {CHEAP_SPEC: (1024, 1024), GOOD_SPEC: (64, 64)}
# Makers work like any program: the more requests get a pair, the more of the daemon is seen. Who asks for a
# pair of a pool that is dry waits, and is late, but not so long that the other connections wait for that.
_SETTINGS: dict[str, dict[str, Any]] = {
    "workers": {"scheduling": "normal"},
    "refill": {"heed_pressure": False},
    "requests": {"wait_timeout_s": 0.05},
}
_PAUSE_S = 0.05
_SAMPLE_S = 1.0
_QUIET_TIMEOUT_S = 10.0


class Fuzzed:
    """A daemon of the bench's own. Raises ``BenchError`` if it does not start."""

    def __init__(self, home: Nest) -> None:
        self._log = home.folder / "fuzzed.log"
        self.daemon = Daemon(home, "fuzzed", _POOLS, _SETTINGS)
        self.daemon.wait_full()
        self.pid = self.daemon.pids()["daemon"][0]
        self.memory = Memory()
        self.outcomes: dict[str, Any] = {}  # what became of its pairs; see ``complaints``
        sizes = (1, 48, 1218, 4096)
        self.words = Words(
            tuple(
                self.daemon.client.encrypt(KeyId=KEY_ID, Plaintext=bytes(size))["CiphertextBlob"]
                for size in sizes
            )
        )

    def defects(self) -> list[str]:
        """The log's lines that tell of a defect: where it was, and no value."""
        return [line for line in self._log.read_text(errors="replace").splitlines() if "defect" in line]

    def complaints(self) -> list[str]:
        """What is wrong with its books, and with what it still holds, once nobody is connected any more."""
        try:
            return self._complaints()
        except KpcacheError as error:
            return [f"it does not tell its status: {type(error).__name__}"]

    def _complaints(self) -> list[str]:
        give_up = time.monotonic() + _QUIET_TIMEOUT_S
        while (status := self.daemon.status())["connections"] > 1 and time.monotonic() < give_up:
            time.sleep(_PAUSE_S)
        wrong = [f"{status['connections'] - 1} connections are left"] if status["connections"] > 1 else []
        for spec, pool in status["pools"].items():
            parts = sum(pool[name] for name in ("issued", "discarded", "held", "ready", "in_hand"))
            if pool["generated"] + pool["restored"] != parts:
                wrong.append(f"the books of {spec} do not add up")
            if pool["waiting"]:
                wrong.append(f"{pool['waiting']} wait for {spec}")
        if not status["issuing"]:
            wrong.append("no pairs are given out any more")
        self.outcomes = {
            "generated": sum(pool["generated"] for pool in status["pools"].values()),
            "issued": sum(pool["issued"] for pool in status["pools"].values()),
            "discarded": status["discarded"],
        }
        return wrong


class Witness(threading.Thread):
    """A good client, and the daemon's memory, for as long as the block of a ``with`` takes.

    ``served_s``: from request to answer, of each pair that it got; each is opened again, and compared.
    """

    def __init__(self, fuzzed: Fuzzed) -> None:
        super().__init__(name="witness")
        self.served_s: list[float] = []
        self.failures: Counter[str] = Counter()
        self._fuzzed = fuzzed
        self._over = threading.Event()

    def __enter__(self) -> "Witness":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        started = sampled = time.monotonic()
        with Client(self._fuzzed.daemon.socket) as client:
            while True:
                self._ask(client)
                now = time.monotonic()
                if now - sampled >= _SAMPLE_S:
                    sampled = now
                    self._note_memory(now - started)
                if self._over.wait(_PAUSE_S):
                    self._ask(client)  # afterwards, too
                    return

    def _note_memory(self, at_s: float) -> None:
        try:
            self._fuzzed.memory.note(at_s, rss(self._fuzzed.pid))
        except OSError:
            self.failures["the daemon is gone"] += 1

    def _ask(self, client: Client) -> None:
        started = time.perf_counter()
        try:
            answer = client.generate_data_key_pair(KeyId=KEY_ID, KeyPairSpec=GOOD_SPEC)
            self.served_s.append(time.perf_counter() - started)
            opened = client.decrypt(CiphertextBlob=answer["PrivateKeyCiphertextBlob"])
        except KpcacheError as error:
            self.failures[type(error).__name__] += 1
        else:
            if opened["Plaintext"] != answer["PrivateKeyPlaintext"]:
                self.failures["another plaintext"] += 1
