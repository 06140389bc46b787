"""What of a VMClock page and of the kernel's log tells that a machine was copied."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.core.vm_generation import log_sequence, tells_of_fork, vmclock_fault
from tests.vmclock import page

FORKED = b"5,341,1278582,-;random: crng reseeded due to virtual machine fork\n"


def test_a_page_with_a_generation_counter_is_taken() -> None:
    assert vmclock_fault(page(7)) == ""


@pytest.mark.parametrize(
    ("fault", "bad"),
    [
        ("no VMClock page", b""),
        ("no VMClock page", page(7)[:111]),
        ("no VMClock page", bytes(112)),
        ("no VMClock page", page(7)[:4][::-1] + page(7)[4:]),
        ("version", page(7, version=2)),
        ("hypervisor", page(7, flags=0xFF)),
    ],
)
def test_every_other_page_is_refused(fault: str, bad: bytes) -> None:
    assert fault in vmclock_fault(bad)


@given(st.binary(max_size=200))
def test_no_page_is_too_strange(data: bytes) -> None:
    assert vmclock_fault(data) or data[:4] == struct.pack("<I", 0x4B4C4356)


def test_the_line_of_a_fork_counts_if_the_kernel_wrote_it() -> None:
    assert tells_of_fork(FORKED)
    assert log_sequence(FORKED) == 341
    assert tells_of_fork(FORKED + b" SUBSYSTEM=x\n")
    # A program can write any text, but with another facility than the kernel's.
    assert not tells_of_fork(FORKED.replace(b"5,", b"13,", 1))


@pytest.mark.parametrize(
    "record",
    [
        b"", b";", b"5", b"5,77,109384,-;random: crng init done\n", FORKED.replace(b";", b";x"),
        b"-5" + FORKED[1:], b"x" + FORKED, FORKED[:-2],
        b"5,341,1,-;a\nrandom: crng reseeded due to virtual machine fork",
    ],
)  # fmt: skip
def test_no_other_record_does(record: bytes) -> None:
    assert not tells_of_fork(record)


@given(st.binary(max_size=100))
def test_no_record_is_too_strange(record: bytes) -> None:
    tells_of_fork(record)
    sequence = log_sequence(record)
    assert sequence is None or isinstance(sequence, int)
