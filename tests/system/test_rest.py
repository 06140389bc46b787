"""A full daemon at rest costs nothing."""

import contextlib
import time
from pathlib import Path

from tests.system.harness import pools, running

WINDOW_S = 10.0


def cpu_s(pids: list[int]) -> float:
    """CPU seconds of all threads of these processes so far (/proc/PID/task/*/schedstat, nanoseconds)."""
    total = 0
    for pid in pids:
        for task in Path("/proc", str(pid), "task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def test_at_rest_and_full_all_processes_use_no_cpu(tmp_path: Path) -> None:
    """Under 0.1 % of a core together, with clients connected. The window is what is measured, not a wait."""
    targets = {"RSA_2048": 8, "ECC_NIST_P256": 256, "ML_KEM_768": 64}
    with running(tmp_path, pools(**targets)) as daemon, contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(daemon.client()).ping()
        daemon.wait_full()
        pids = daemon.all_pids()
        before = cpu_s(pids)
        time.sleep(WINDOW_S)
        used = cpu_s(pids) - before
    assert used / WINDOW_S < 0.001, f"{used / WINDOW_S:.3%} of a core"
