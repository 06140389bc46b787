"""A client that logs: ``python -m bench.abuse.client SOCKET LOG NAME SPEC PER_S``, until SIGTERM.

Each request is a line of its log: number, monotonic time, outcome, spec, SHA-256 of the private and of the
public DER. The last line says how many there were. Keys are judged here, as the bytes that came.
"""

import hashlib
import signal
import sys
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any, Final, TextIO, cast

from bench.abuse.records import ISSUED, OPENED
from kpcache import Client
from kpcache.errors import DaemonUnreachableError, KpcacheError
from kpcache.worker.checks import check

# A blob is opened with each so-manieth answer: it takes the daemon as long as making it.
OPEN_EVERY: Final = 20
END: Final = "end"
_KEY_ID: Final = "alias/kpcache"
_MEMBERS: Final = {
    "PrivateKeyCiphertextBlob", "PrivateKeyPlaintext", "PublicKey", "KeyId", "KeyPairSpec", "KeyMaterialId",
}  # fmt: skip
_RECONNECT_S: Final = 30.0
# Before asking again where nobody answered, or all that there was is gone.
_PAUSE_S: Final = 0.02


class Asker:
    """Asks, judges and logs; one request at a time."""

    def __init__(self, socket: str, log: TextIO, name: str) -> None:
        self._client = Client(socket, reconnect_s=_RECONNECT_S)
        self._log = log
        self._name = name
        self.number = 0

    def ask(self, spec: str, wait_s: float | None = None) -> str:
        """One request; its outcome is logged before this returns it."""
        self.number += 1
        context = {"client": self._name, "request": str(self.number)}
        digests = "- -"
        try:
            answer = self._client.generate_data_key_pair(
                KeyId=_KEY_ID, KeyPairSpec=cast(Any, spec), EncryptionContext=context, wait_s=wait_s
            )
        except KpcacheError as error:
            came_s = time.monotonic()
            outcome = f"refused:{error.code}:{error.reason or '-'}"
        else:
            came_s = time.monotonic()
            outcome = fault_of(answer, spec)
            if not outcome:
                digests = f"{_sha256(answer['PrivateKeyPlaintext'])} {_sha256(answer['PublicKey'])}"
                outcome = self._open(answer, context) if self.number % OPEN_EVERY == 0 else ISSUED
        self._log.write(f"{self.number} {came_s!r} {outcome} {spec} {digests}\n")
        return outcome

    def _open(self, answer: Any, context: dict[str, str]) -> str:
        blob = answer["PrivateKeyCiphertextBlob"]
        try:
            opened = self._client.decrypt(CiphertextBlob=blob, EncryptionContext=context)
        except DaemonUnreachableError:
            return ISSUED
        except KpcacheError as error:
            return ISSUED if error.reason == "draining" else f"fault:blob-refused:{error.code}"
        return OPENED if opened["Plaintext"] == answer["PrivateKeyPlaintext"] else "fault:blob-of-another-key"

    def end(self) -> None:
        """The log is whole."""
        self._log.write(f"{END} {self.number}\n")
        self._client.close()


def fault_of(answer: Mapping[str, Any], spec: str) -> str:
    """What is wrong with an answer, as one word; empty if it is whole and a sound pair of ``spec``."""
    if set(answer) != _MEMBERS or answer["KeyPairSpec"] != spec:
        return "fault:not-whole"
    why = check(spec, answer["PrivateKeyPlaintext"], answer["PublicKey"])
    return f"fault:{why.replace(' ', '-')}" if why else ""


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main() -> None:
    path, log, name, spec, per_s = sys.argv[1:]
    stopped: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        stopped.append(number)

    signal.signal(signal.SIGTERM, stop)
    pause_s = 1 / float(per_s)
    with open(log, "w", buffering=1) as file:
        asker = Asker(path, file, name)
        due = time.monotonic()
        while not stopped:
            outcome = asker.ask(spec)
            due = max(due + pause_s, time.monotonic() - 1.0)  # what was missed long ago is not made up for
            time.sleep(max(due - time.monotonic(), 0.0) if outcome in (ISSUED, OPENED) else _PAUSE_S)
        asker.end()


if __name__ == "__main__":
    main()
