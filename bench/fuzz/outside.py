"""Cases against a daemon's socket: many connections at once, each fed piece by piece and read to its end.

The reference tells which requests stand in the bytes. Each must be answered once, nobody else's may be, and
behind a broken message nothing is.
"""

import hashlib
import socket
from collections import Counter
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import msgpack

from bench.fuzz import reference
from bench.fuzz.campaign import Work
from bench.fuzz.cases import Case, Maker
from bench.fuzz.inside import WrongError
from bench.fuzz.tally import Finding, Tally
from bench.fuzz.words import Words
from kpcache.core.limits import Limits
from kpcache.errors import WIRE_CLASSES

# Fewer, over all processes, than the daemon serves half-closed to their end for one user.
_AT_ONCE = 12
_TIMEOUT_S = 60.0
_READ_BYTES = 65536
_MAX_MESSAGE_BYTES = Limits().max_message_bytes


def work(path: str, seed: int, words: Words) -> Work:
    """Runs cases against the daemon at ``path``, which has the default limits."""
    return partial(_run, path, seed, words)


def _run(path: str, seed: int, words: Words, numbers: range) -> Tally:
    maker, tally = Maker(seed, words), Tally()
    for start in range(numbers.start, numbers.stop, _AT_ONCE):
        together = range(start, min(start + _AT_ONCE, numbers.stop))
        cases = {number: maker.case(number) for number in together}
        tally.cases += len(cases)
        tally.messages += sum(case.messages for case in cases.values())
        try:
            answers = _converse(path, list(cases.values()))
        except OSError as error:
            tally.find(Finding("no answer", type(error).__name__, start))
            continue
        for (number, case), answered in zip(cases.items(), answers, strict=True):
            try:
                _compare(case, answered, tally)
            except WrongError as wrong:
                tally.find(Finding("wrong", str(wrong), number, case.stream.hex()))
    return tally


def _converse(path: str, cases: list[Case]) -> list[bytes]:
    """What each of these connections gets for its bytes, up to its end. Raises ``OSError``."""
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in cases]
        for sock in socks:
            sock.settimeout(_TIMEOUT_S)
            sock.connect(path)
        for at in range(max(len(case.pieces) for case in cases)):
            for sock, case in zip(socks, cases, strict=True):
                if at < len(case.pieces):
                    with suppress(BrokenPipeError, ConnectionResetError):  # cut, with reason or without
                        sock.sendall(case.pieces[at])
        for sock in socks:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
        return [_read_to_end(sock) for sock in socks]


def _read_to_end(sock: socket.socket) -> bytes:
    parts: list[bytes] = []
    with suppress(ConnectionResetError):  # it was cut with bytes of ours unread
        while data := sock.recv(_READ_BYTES):
            parts.append(data)
    return b"".join(parts)


def _compare(case: Case, answered: bytes, tally: Tally) -> None:
    """Hold the answers against the reference's reading. Raises ``WrongError``."""
    requests: dict[int, str] = {}
    expected: Counter[int] = Counter()
    is_broken = False
    for outcome in reference.read(case.stream, _MAX_MESSAGE_BYTES):
        if isinstance(outcome, reference.Request):
            requests[outcome.msgid] = outcome.method
            expected[outcome.msgid] += 1
        elif isinstance(outcome, reference.Notification):
            tally.notifications += 1
        elif isinstance(outcome, reference.Broken):
            is_broken = True
            if outcome.address is not None:
                expected[outcome.address] += 1
    tally.broken += is_broken
    # A msgid used twice is broken or not, by whether the first was answered meanwhile.
    is_certain = max(expected.values(), default=1) == 1
    for answer in _unpacked(answered):
        msgid = _judge(answer, tally)
        expected[msgid] -= 1
        if expected[msgid] < 0:
            raise WrongError("an answer that nobody asked for")
        tally.reached += msgid in requests
    for msgid in (+expected).elements():
        # Who waited for a pair when its connection broke is answered no more.
        may_have_waited = is_broken and requests.get(msgid, "").startswith("GenerateDataKeyPair")
        if is_certain and not may_have_waited:
            raise WrongError("a request was not answered")


def _unpacked(data: bytes) -> list[Any]:
    unpacker = msgpack.Unpacker()
    unpacker.feed(data)
    try:
        answers = list(unpacker)
    except (ValueError, msgpack.UnpackException):
        raise WrongError("the daemon sent what is no MessagePack") from None
    if unpacker.tell() != len(data):
        raise WrongError("the daemon sent a part of an answer")
    return answers


def _judge(answer: Any, tally: Tally) -> int:
    """The msgid of a well-formed answer, which is counted."""
    match answer:
        case [1, int(msgid), None, dict(result)]:
            tally.answered["result"] += 1
            if public := result.get("PublicKey"):
                digest = hashlib.blake2b(public, digest_size=8).digest()
                tally.public_keys.append(int.from_bytes(digest, "big"))
        case [1, int(msgid), {"Code": str(code), "Message": str()}, None]:
            if code not in WIRE_CLASSES or code == "KMSInternalException":
                raise WrongError("refused with an internal error")
            tally.answered[code] += 1
        case _:
            raise WrongError("an answer that is none")
    return msgid
