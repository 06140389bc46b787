"""Which way into the background a maker takes, by what the kernel shows of its scheduling groups."""

from pathlib import Path

import pytest

from kpcache.worker.background import sessions_are_groups

HYBRID = "9:name=systemd:/\n4:memory:/some/where\n2:cpuacct:/\n1:cpu:/\n0::/\n"


@pytest.mark.parametrize(
    ("switch", "cgroups", "with_cpu_max", "expected"),
    [
        ("1\n", "0::/\n", [], True),
        ("0\n", "0::/\n", [], False),
        ("1\n", HYBRID, [], True),
        ("1\n", HYBRID.replace("1:cpu:/", "1:cpu:/kpcache"), [], False),
        ("1\n", "3:cpu,cpuacct:/docker/1\n0::/\n", [], False),
        # A service whose cgroup has the CPU controller, or whose parent's has.
        ("1\n", "0::/system.slice/kpcache.service\n", ["system.slice/kpcache.service"], False),
        ("1\n", "0::/system.slice/kpcache.service\n", ["system.slice"], False),
        ("1\n", "0::/system.slice/kpcache.service\n", ["user.slice"], True),
        # A container's root looks like the machine's, but for cpu.max.
        ("1\n", "0::/\n", ["."], False),
    ],
)
def test_sessions_are_groups(
    tmp_path: Path, switch: str, cgroups: str, with_cpu_max: list[str], expected: bool
) -> None:
    for folder in with_cpu_max:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "cpu.max").write_text("max 100000\n")
    assert sessions_are_groups(switch, cgroups, tmp_path) is expected
