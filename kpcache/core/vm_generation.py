"""What tells which life of its virtual machine a process is in: the VMClock page, the kernel's log.

A machine that is loaded from a snapshot, once or many times, goes on with the same memory in each copy. The
VMClock device has a counter that is another one then than it was (UAPI group's specification; the kernel's
include/uapi/linux/vmclock-abi.h), and it is so before the first processor of the copy runs. Without that
device there is a line in the kernel's log, which comes some milliseconds after the copy began to run
(drivers/char/random.c, since Linux 5.18).
"""

from typing import Final

VMCLOCK_BYTES: Final = 112
_MAGIC: Final = (0x4B4C4356).to_bytes(4, "little")  # "VCLK"
_VERSION: Final = 1
_COUNTER_PRESENT: Final = 1 << 8
# vm_generation_counter, at byte 104, if the page is read as 64-bit words. It is read in one access, and
# changes while no processor of the machine runs: seq_count, which guards the clock's members, is not needed.
COUNTER_WORD: Final = 13

_FORKED: Final = b"random: crng reseeded due to virtual machine fork"


def vmclock_fault(page: bytes) -> str:
    """Why this VMClock page does not tell the generation; empty if it does. The page is little-endian, and
    is read so."""
    if len(page) < VMCLOCK_BYTES or page[:4] != _MAGIC:
        return "it is no VMClock page"
    if int.from_bytes(page[8:10], "little") != _VERSION:
        return "it is a VMClock page of a version that is not known"
    if not int.from_bytes(page[24:32], "little") & _COUNTER_PRESENT:
        return "it is a VMClock page without a generation counter: the hypervisor must offer one"
    return ""


def log_sequence(record: bytes) -> int | None:
    """The sequence number of a record of /dev/kmsg, from 0; None for what is none (kernel's dev-kmsg)."""
    try:
        return int(record.split(b",", 2)[1])
    except (IndexError, ValueError):
        return None


def tells_of_fork(record: bytes) -> bool:
    """Whether the kernel itself says in this record that its machine was copied.

    The part in front is priority + 8 x facility, and no program can write with the kernel's facility, 0.
    """
    head, _, text = record.partition(b";")
    priority = head.partition(b",")[0]
    return priority.isdigit() and int(priority) < 8 and text.split(b"\n", 1)[0] == _FORKED
