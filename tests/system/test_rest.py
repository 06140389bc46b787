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


def share_of_a_core(pids: list[int]) -> float:
    """What they use together over a window, which is what is measured, not a wait."""
    before = cpu_s(pids)
    time.sleep(WINDOW_S)
    return (cpu_s(pids) - before) / WINDOW_S


def test_at_rest_and_full_all_processes_use_no_cpu_also_after_a_burst_of_whole_pools(tmp_path: Path) -> None:
    """Under 0.1 % of a core together, with clients connected; what was taken is made anew and no more."""
    targets = {"RSA_2048": 8, "ECC_NIST_P256": 256, "ML_KEM_768": 64}
    with running(tmp_path, pools(**targets)) as daemon, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(daemon.client()) for _ in range(20)]
        for client in clients:
            client.ping()
        daemon.wait_full()
        pids = daemon.all_pids()
        used = share_of_a_core(pids)
        assert used < 0.001, f"{used:.3%} of a core"
        for spec, target in targets.items():
            for _ in range(target):
                clients[0].generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=spec)
        daemon.wait_full()
        for spec, target in targets.items():
            pool = daemon.status()["pools"][spec]
            assert (pool["issued"], pool["generated"], pool["discarded"]) == (target, 2 * target, 0)
        assert daemon.all_pids() == pids
        used = share_of_a_core(pids)
        assert used < 0.001, f"{used:.3%} of a core after a burst"
