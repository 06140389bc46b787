"""What the daemon knows of swap: of the machine's, and of its cgroup's."""

from pathlib import Path

import pytest

from kpcache.daemon.memory import swap

HEADINGS = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
DEVICE = "/dev/sda2                               partition\t2097148\t\t0\t\t-2\n"


def machine(folder: Path, swaps: str | None, group: str = "0::/system.slice/kpcache.service") -> Path:
    """/proc of a machine, and beside it its cgroups without limits."""
    proc = folder / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text(f"4:memory:/elsewhere\n{group}\n")
    if swaps is not None:
        (proc / "swaps").write_text(swaps)
    service = folder / "cgroup/system.slice/kpcache.service"
    service.mkdir(parents=True)
    for each in (service, service.parent):
        (each / "memory.swap.max").write_text("max\n")
    return proc


@pytest.mark.parametrize(
    ("swaps", "known"), [(HEADINGS, "none"), (HEADINGS + DEVICE, "possible"), (None, "unknown")]
)
def test_the_machines_swap_is_known_where_it_is_shown(tmp_path: Path, swaps: str | None, known: str) -> None:
    assert swap(machine(tmp_path, swaps), tmp_path / "cgroup") == known


@pytest.mark.parametrize("limited", ["system.slice", "system.slice/kpcache.service"])
@pytest.mark.parametrize("swaps", [HEADINGS + DEVICE, None])
def test_a_cgroup_without_swap_has_none_whatever_the_machine_has(
    tmp_path: Path, limited: str, swaps: str | None
) -> None:
    proc = machine(tmp_path, swaps)
    (tmp_path / "cgroup" / limited / "memory.swap.max").write_text("0\n")
    assert swap(proc, tmp_path / "cgroup") == "none"


def test_a_limit_of_another_group_does_not_count(tmp_path: Path) -> None:
    """Where this process's own group is not to be seen, what is mounted is not above it."""
    proc = machine(tmp_path, HEADINGS + DEVICE, "0::/../other")
    (tmp_path / "cgroup/memory.swap.max").write_text("0\n")
    assert swap(proc, tmp_path / "cgroup") == "possible"


def test_without_cgroups_the_machine_decides(tmp_path: Path) -> None:
    proc = machine(tmp_path, HEADINGS + DEVICE)
    (proc / "self/cgroup").unlink()
    assert swap(proc, tmp_path / "cgroup") == "possible"
