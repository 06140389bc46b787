"""Looks for private keys in the memory of processes: how many of them, in which form. Shows no byte of one.

A form is how a secret number may lie in memory. Every run of eight bytes in a form is known here, so that
whatever allocators have written over the ends of a copy, its rest is found: 15 bytes in a row hold eight that
are aligned. Only secret parts are looked for: public ones may lie anywhere.
"""

import base64
import contextlib
import mmap
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key

_WORD = 8
_PIECE_BYTES = 1 << 22
_DIGIT_BITS = 30  # of Python's integers, each in four bytes (sys.int_info)

Span = tuple[int, int]  # first byte, and the one behind the last


class Search:
    """What is looked for. ``keys``: private keys as DER PKCS#8, of RSA or an elliptic curve."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._known: dict[int, tuple[int, str]] = {}  # a word: which key, which form
        for number, der in enumerate(keys):
            for form, data, spans in _forms(der):
                for start, end in spans:
                    for at in range(start, end - _WORD + 1):
                        word = int.from_bytes(data[at : at + _WORD], "little")
                        self._known[word] = number, form

    def residue(self, pid: int) -> Counter[str]:
        """Of how many keys something is left in a process's writable memory, by "form, where".

        The test is skipped where root may not read other processes.
        """
        found = {
            (number, f"{form}, {place}")
            for place, words in _memory(pid)
            for number, form in (self._known[word] for word in self._known.keys() & words)
        }
        return Counter(where for _, where in found)

    def report(self, pids: dict[int, str]) -> dict[str, Counter[str]]:
        """``residue`` of processes by their names; those without any are left out."""
        return {
            f"{name} {pid}": residue for pid, name in pids.items() if (residue := self.residue(pid)).total()
        }


def _forms(der: bytes) -> Iterator[tuple[str, bytes, list[Span]]]:
    """A form's name, its bytes, and where in them the secret parts are."""
    numbers = [number.to_bytes((number.bit_length() + 7) // 8, "big") for number in _secrets(der)]
    for number in numbers:
        yield "little-endian", number[::-1], [(0, len(number))]
        digits = _digits(int.from_bytes(number, "big"))
        yield "digits of an integer", digits, [(0, len(digits))]
    spans = [(start := der.index(number), start + len(number)) for number in numbers]
    yield "big-endian, as in DER", der, spans
    # Four characters for three bytes: from the first whole three to the last.
    yield "base64", base64.b64encode(der), [(-(-start // 3) * 4, end // 3 * 4) for start, end in spans]


def _secrets(der: bytes) -> list[int]:
    key = load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        return [numbers.d, numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp]
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return [key.private_numbers().private_value]


def _digits(number: int) -> bytes:
    mask = (1 << _DIGIT_BITS) - 1
    return b"".join(
        (number >> shift & mask).to_bytes(4, "little") for shift in range(0, number.bit_length(), _DIGIT_BITS)
    )


def _memory(pid: int) -> Iterator[tuple[str, set[int]]]:
    """All aligned words of a process's writable memory, in pieces, and where each piece lies."""
    try:
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    except PermissionError:
        pytest.skip("what is left in memory was NOT tested: reading other processes is not allowed here")
    try:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, _offset, _device, _inode, *name = line.split()
            start, end = (int(address, 16) for address in span.split("-"))
            while rights.startswith("rw") and start < end:
                data = b""
                with contextlib.suppress(OSError):  # this page was given back meanwhile
                    data = os.pread(memory, min(_PIECE_BYTES, end - start), start)
                yield (name[0] if name else "anonymous"), set(memoryview(data).cast("Q"))
                start += len(data) or mmap.PAGESIZE
    finally:
        os.close(memory)
