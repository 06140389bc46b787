"""MessagePack as no library writes it, after its published spec ("Formats"): any legal length of a length,
maps that say a key twice, bytes that are no item."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

_FIX, _8, _16, _32 = range(4)  # by how many bytes a length is written


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes that go in as they are."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pairs:
    """A map as its entries, of which any may come twice."""

    entries: Sequence[tuple[Any, Any]]


def pack(value: Any, rng: Random) -> bytes:
    """The value, each of its parts in a form that is drawn among those that hold it."""
    match value:
        case Raw():
            return value.data
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int():
            return _integer(value, rng)
        case float():
            return b"\xcb" + struct.pack(">d", value)
        case str():
            return _sized(value.encode("utf-8", "surrogatepass"), (0xA0, 31), (0xD9, 0xDA, 0xDB), rng)
        case bytes():
            return _sized(value, None, (0xC4, 0xC5, 0xC6), rng)
        case Pairs():
            return _container(value.entries, 0x80, (0xDE, 0xDF), rng)
        case dict():
            return _container(list(value.items()), 0x80, (0xDE, 0xDF), rng)
        case _:
            return _container([(item,) for item in value], 0x90, (0xDC, 0xDD), rng)


def _integer(value: int, rng: Random) -> bytes:
    forms: list[bytes] = []
    if -32 <= value < 128:
        forms.append(struct.pack("b" if value < 0 else "B", value))
    for first, code, low, high in (
        (0xCC, ">B", 0, 2**8), (0xCD, ">H", 0, 2**16), (0xCE, ">I", 0, 2**32), (0xCF, ">Q", 0, 2**64),
        (0xD0, ">b", -(2**7), 2**7), (0xD1, ">h", -(2**15), 2**15), (0xD2, ">i", -(2**31), 2**31),
        (0xD3, ">q", -(2**63), 2**63),
    ):  # fmt: skip
        if low <= value < high:
            forms.append(bytes([first]) + struct.pack(code, value))
    return forms[int(rng.random() * len(forms))]


def _sized(data: bytes, fix: tuple[int, int] | None, firsts: tuple[int, int, int], rng: Random) -> bytes:
    size = len(data)
    form = _form(size, fix[1] if fix else -1, rng)
    if form == _FIX and fix:
        return bytes([fix[0] | size]) + data
    return bytes([firsts[form - 1]]) + size.to_bytes(1 << form - 1, "big") + data


def _container(entries: Sequence[tuple[Any, ...]], fix: int, firsts: tuple[int, int], rng: Random) -> bytes:
    size = len(entries)
    form = max(_form(size, 15, rng), 0)
    if form == _FIX:
        head = bytes([fix | size])
    else:
        form = max(form, _16)
        head = bytes([firsts[form - _16]]) + size.to_bytes(1 << form - 1, "big")
    return head + b"".join(pack(item, rng) for entry in entries for item in entry)


def _form(size: int, most_fix: int, rng: Random) -> int:
    """One of the forms that hold this length, the shortest more often than the others."""
    shortest = _FIX if size <= most_fix else _8 if size < 2**8 else _16 if size < 2**16 else _32
    return shortest if rng.random() < 0.5 else shortest + int(rng.random() * (_32 + 1 - shortest))
