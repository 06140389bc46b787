"""What workers do to themselves: unreadable by others, no cores, nothing of where they were started."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from kpcache.worker import process
from kpcache.worker.background import sessions_are_groups
from tests.system.shard_driver import ShardDriver, shard

# Without capabilities even root is but a user, who may read any process of his that is dumpable and none
# that is not. SECBIT_NOROOT keeps exec from giving them back (capabilities(7)); for other users both calls
# change nothing. capset(2) takes version 3 of its header and two empty data blocks.
_WITHOUT_CAPABILITIES = [
    sys.executable,
    "-c",
    "import ctypes, os, struct, sys; libc = ctypes.CDLL(None); libc.prctl(28, 3);"
    "assert libc.capset(struct.pack('Ii', 0x20080522, 0), bytes(24)) == 0;"
    "os.execvp(sys.argv[1], sys.argv[1:])",
]
_TRY_TO_READ = """
import sys
for pid in sys.argv[1:]:
    try:
        open(f"/proc/{pid}/environ").close()
        print("read")
    except PermissionError:
        print("refused")
"""


def test_neither_shard_nor_maker_can_be_read_by_others_of_their_uid() -> None:
    with shard(prefix=_WITHOUT_CAPABILITIES) as driver:
        pids = [driver.process.pid, driver.start_maker()]
        ordinary = [*_WITHOUT_CAPABILITIES, sys.executable, "-c", "print(flush=True); input()"]
        with subprocess.Popen(ordinary, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()  # it is past its exec
            argv = [*_WITHOUT_CAPABILITIES, sys.executable, "-c", _TRY_TO_READ, *map(str, [other.pid, *pids])]
            seen = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
            other.communicate(b"\n")
    assert seen == ["read", "refused", "refused"]


def test_neither_shard_nor_maker_leaves_a_core_file() -> None:
    with shard() as driver:
        for pid in (driver.process.pid, driver.start_maker()):
            assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)


def test_they_are_named() -> None:
    with shard() as driver:
        pids = (driver.process.pid, driver.start_maker())
        names = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids]
    assert names == ["kpcache-shard", "kpcache-maker"]


# What "idle" means here is decided as the maker decides it; test_background.py tests that decision.
GROUPS = sessions_are_groups(
    Path("/proc/sys/kernel/sched_autogroup_enabled").read_text(),
    Path("/proc/self/cgroup").read_text(),
    Path("/sys/fs/cgroup"),
)


@pytest.mark.parametrize(
    ("scheduling", "policy"),
    [
        ("idle", os.SCHED_BATCH if GROUPS else os.SCHED_IDLE),
        ("batch", os.SCHED_BATCH),
        ("normal", os.SCHED_OTHER),
    ],
)
def test_a_maker_steps_back_as_told_and_a_shard_never(scheduling: str, policy: int) -> None:
    with shard(scheduling=scheduling) as driver:
        maker = driver.start_maker()
        driver.make("ECC_NIST_P256", 1)  # by then it has stepped back
        assert os.sched_getscheduler(maker) == policy
        assert os.sched_getscheduler(driver.process.pid) == os.SCHED_OTHER
        assert os.getsid(maker) == maker
        assert os.getpriority(os.PRIO_PROCESS, maker) == (19 if scheduling == "idle" else 0)
        if GROUPS:
            group = Path(f"/proc/{maker}/autogroup").read_text()
            assert group.endswith("nice 19\n" if scheduling == "idle" else "nice 0\n")


def test_nothing_is_imported_from_the_current_folder_or_the_environment(tmp_path: Path) -> None:
    planted = tmp_path / "ran"
    for name in ("msgpack", "cryptography", "selectors", "sitecustomize", "kpcache"):
        (tmp_path / f"{name}.py").write_text(
            f"open({str(planted)!r}, 'a').write({name!r})\nraise SystemExit(9)\n"
        )
    inherit = {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "msgpack.py")}
    control = [sys.executable, "-c", "import msgpack"]
    subprocess.run(control, cwd=tmp_path, check=False)
    assert "msgpack" in planted.read_text()  # so the trap works
    planted.unlink()
    with shard(cwd=tmp_path, inherit=inherit) as driver:
        maker = driver.start_maker()
        driver.make("ECC_NIST_P256", 1)
        assert not planted.exists()
        for pid in (driver.process.pid, maker):
            assert os.readlink(f"/proc/{pid}/cwd") == "/"


def test_the_environment_is_scrubbed_but_for_locale_and_allocator() -> None:
    inherited = {
        "PATH": "/bin",
        "HOME": "/root",
        "PYTHONPATH": "/tmp",
        "LD_PRELOAD": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }
    allocator = {
        "MALLOC_PERTURB_": "165",
        "PYTHONMALLOC": "malloc",
        "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
    }
    assert process.environment(inherited) == {"LANG": "C.UTF-8"}
    assert process.environment(inherited | allocator) == {"LANG": "C.UTF-8", **allocator}


@pytest.mark.parametrize("worker", ["shard", "maker"])
def test_workers_import_neither_trio_nor_boto3(worker: str) -> None:
    source = f"import sys, kpcache.worker.{worker}; print(*(m.partition('.')[0] for m in sys.modules))"
    output = subprocess.run(
        [sys.executable, "-P", "-c", source], check=True, capture_output=True, text=True
    ).stdout
    loaded = set(output.split())
    assert not loaded & {"trio", "boto3", "botocore", "rich", "prometheus_client"}
    assert ("cryptography" in loaded) == (worker == "maker")


def test_a_shard_of_another_version_than_the_daemons_refuses_to_work() -> None:
    """After an upgrade under a running daemon a restarted worker is new code on an old pipe."""
    driver = ShardDriver(version="0.0.0")
    try:
        _, words = driver.process.communicate(timeout=20)
        assert driver.process.returncode == 3
    finally:
        driver.close()
    assert b"restart the daemon" in words
