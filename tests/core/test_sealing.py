"""What a shard holds goes into segments of bounded size, costliest first, and is with it no more."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kpcache.core import segment
from kpcache.core.segment import Header, Place, Row, SegmentError
from kpcache.core.specs import MAKEABLE
from kpcache.worker.holding import Holding
from kpcache.worker.sealing import Sealer, open_segment

KEY = bytes(range(32))
PLACE = Place(b"b" * 16, b"m" * 16, 3)
# Bytes of a private and a public key in DER.
SIZES = {
    "RSA_2048": (1218, 294), "RSA_3072": (1794, 422), "RSA_4096": (2376, 550), "ML_KEM_1024": (86, 1590),
    "ECC_NIST_EDWARDS25519": (48, 44),
}  # fmt: skip


def row(spec: str, number: int = 0, sizes: tuple[int, int] = (40, 20)) -> Row:
    private, public = (b"%d " % number + os.urandom(size) for size in sizes)
    return Row(spec, 3, private, public, b"d" * 32, os.urandom(segment.tags_bytes(spec)), 1.5 + number)


def hold(holding: Holding, rows: list[Row]) -> list[Row]:
    holding.record([holding.add(each) for each in rows])
    return rows


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def sealed(tmp_path: Path) -> list[tuple[Header, list[Row]]]:
    """What lies in the folder, opened, in the order of sealing."""
    found = []
    for path in tmp_path.iterdir():
        data = path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600
        header = segment.unpack_header(data)
        assert segment.why_not(header, path.name, PLACE, range(1, 8)) == ""
        found.append((header, open_segment(data, KEY)))
    return sorted(found, key=lambda each: each[0].number)


def test_what_is_held_is_sealed_and_opened_costliest_first_and_oldest_first(
    tmp_path: Path, folder: int
) -> None:
    holding = Holding()
    cheap = hold(holding, [row("ECC_NIST_P256", n) for n in range(3)])
    costly = hold(holding, [row("RSA_4096", n) for n in range(2)])
    holding.add(row("RSA_4096", 9))  # not recorded: nobody may ever have it
    Sealer(folder, 1, KEY, PLACE, 7).seal(holding)
    [(header, rows)] = sealed(tmp_path)
    assert rows == costly + cheap
    assert header[1:7] == (PLACE, 7, 1, 0, 5, 6)
    assert holding.take_oldest("RSA_4096") is holding.take_oldest("ECC_NIST_P256") is None


def test_a_shard_that_holds_nothing_leaves_nothing(tmp_path: Path, folder: int) -> None:
    holding = Holding()
    holding.add(row("RSA_2048"))
    Sealer(folder, 0, KEY, PLACE, 7).seal(holding)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spec", SIZES)
def test_no_segment_is_larger_than_what_is_read_of_one(tmp_path: Path, folder: int, spec: str) -> None:
    holding = Holding()
    rows = hold(
        holding, [row(spec, n, SIZES[spec]) for n in range(2 * segment.FULL_BYTES // sum(SIZES[spec]))]
    )
    Sealer(folder, 0, KEY, PLACE, 7).seal(holding)
    found = sealed(tmp_path)
    assert [header.number for header, _ in found] == list(range(len(found)))
    assert len(found) >= 2
    assert [each for _, part in found for each in part] == rows
    assert max(path.stat().st_size for path in tmp_path.iterdir()) <= segment.MAX_BYTES


def test_every_spec_is_sealed(tmp_path: Path, folder: int) -> None:
    holding = Holding()
    for spec in MAKEABLE:
        hold(holding, [row(spec)])
    Sealer(folder, 0, KEY, PLACE, 7).seal(holding)
    [(_, rows)] = sealed(tmp_path)
    assert {each.spec for each in rows} == set(MAKEABLE)


def test_each_pair_is_forgotten_before_its_segment_has_its_name(
    tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    holding = Holding()
    hold(holding, [row("RSA_2048", n, (100_000, 0)) for n in range(9)])
    left: list[tuple[int, int]] = []
    rename = os.rename

    def renaming(*args: str, **options: Any) -> None:
        header = segment.unpack_header((tmp_path / args[0]).read_bytes())
        left.append((header.pairs, holding.size))
        rename(*args, **options)

    monkeypatch.setattr(os, "rename", renaming)
    Sealer(folder, 0, KEY, PLACE, 7).seal(holding)
    assert left == [(4, 5), (4, 1), (1, 0)]


@pytest.mark.parametrize("call", ["write", "rename", "open"])
def test_a_segment_that_cannot_be_written_is_not_there_and_its_pairs_are_burnt(
    tmp_path: Path, folder: int, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    holding = Holding()
    hold(holding, [row("RSA_2048", n, (200_000, 0)) for n in range(4)])
    works = getattr(os, call)
    calls: list[None] = []

    def failing(*args: object, **options: object) -> object:
        calls.append(None)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return works(*args, **options)

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(OSError, match="No space"):
        Sealer(folder, 0, KEY, PLACE, 7).seal(holding)
    [(header, rows)] = sealed(tmp_path)
    assert (header.number, header.pairs, len(rows)) == (0, 2, 2)
    assert holding.size == 0


def test_one_flipped_bit_anywhere_is_found(tmp_path: Path, folder: int) -> None:
    holding = Holding()
    hold(holding, [row("ECC_NIST_P256")])
    Sealer(folder, 0, KEY, PLACE, 7).seal(holding)
    [path] = tmp_path.iterdir()
    data = path.read_bytes()
    assert len(open_segment(data, KEY)) == 1
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1
        with pytest.raises(SegmentError):
            open_segment(bytes(flipped), KEY)
    for cut in (0, segment.HEADER_BYTES, len(data) - 1):
        with pytest.raises(SegmentError):
            open_segment(data[:cut], KEY)


def test_a_segment_opens_under_its_own_key_alone(tmp_path: Path, folder: int) -> None:
    holding = Holding()
    hold(holding, [row("ECC_NIST_P256")])
    Sealer(folder, 0, KEY, PLACE, 7).seal(holding)
    [path] = tmp_path.iterdir()
    with pytest.raises(SegmentError, match="damaged"):
        open_segment(path.read_bytes(), bytes(32))
