"""The reserve under the real daemon: ``python -m tests.system.reserve_trials FOLDER TRIAL``.

It puts a tmpfs of its own on the folder, so it must run in a mount namespace of its own, where that ends with
it. What happens is checked here; prints what was measured, as JSON.
"""

import contextlib
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kpcache.core import segment
from kpcache.errors import KpcacheError
from kpcache.keyring import document
from tests.system.dying_daemon import STEPS
from tests.system.harness import PATIENCE_S, Daemon, cpu_hogs, descendants, pidfd, pools, running, wait_gone

SPEC = "ECC_NIST_P256"
OTHER = "ECC_NIST_EDWARDS25519"
SMALL = pools(**{SPEC: 64}) + "[workers]\nshards = 1\nmakers = 1\n"
ROUNDS = 3  # for what the clock judges, since others may be using this machine
# What a restart may take, in terms of one that has nothing to bring back.
BACK_RATIO = 1.5
BACK_MORE_S = 0.1
BACK_PART = 0.95
LOOK_S = 0.005  # between two looks: whoever looks all the time takes a CPU from what is measured
DRAW = 16  # what the daemon draws of a pool as small as these

Told = tuple[int, dict[str, int]]
"""Pairs restored, and segments dropped by reason."""


def program(name: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name(f"{name}.py"))]


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "reserve").glob("*.segment"))


def held(status: dict[str, Any]) -> int:
    return sum(pool["held"] for pool in status["pools"].values())


def balanced(status: dict[str, Any]) -> bool:
    return all(
        pool["generated"] + pool["restored"]
        == sum(pool[place] for place in ("issued", "discarded", "held", "ready", "in_hand"))
        for pool in status["pools"].values()
    )


def take(daemon: Daemon, count: int, spec: str = SPEC) -> list[bytes]:
    """SHA-256 of so many private keys."""
    with daemon.client() as client:
        return [
            hashlib.sha256(
                client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=spec)["PrivateKeyPlaintext"]
            ).digest()
            for _ in range(count)
        ]


@contextlib.contextmanager
def started(folder: Path, config: str, command: list[str] | None = None) -> Iterator[Daemon]:
    """A daemon that a test ends as it likes."""
    daemon = Daemon(folder, config, command)
    try:
        yield daemon
    finally:
        daemon.kill()


def kill_alone(daemon: Daemon) -> None:
    """Kill -9 of the daemon and of nothing else; its shards, which are on their own, end."""
    with contextlib.ExitStack() as stack:
        fds = [stack.enter_context(pidfd(pid)) for pid in descendants(daemon.process.pid)]
        os.kill(daemon.process.pid, signal.SIGKILL)
        daemon.process.wait(PATIENCE_S)
        wait_gone([fd for fd in fds if fd is not None], PATIENCE_S)


def wait_restored(daemon: Daemon, least: int) -> dict[str, Any]:
    """The first status by which so many pairs are back."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(KpcacheError, OSError), daemon.client() as client:
            while (status := client.status())["reserve"]["restored"] < least:
                assert time.monotonic() < deadline, status["reserve"]
                time.sleep(LOOK_S)
            return dict(status)
        time.sleep(LOOK_S)
    raise AssertionError(f"nothing is back: {daemon.log}")


def fill_and_stop(folder: Path, config: str = SMALL) -> dict[str, Any]:
    """A life of a daemon; its status when it was full."""
    with running(folder, config) as daemon:
        daemon.wait_full()
        return daemon.status()


# --- how fast


def _first_answer_s(folder: Path, config: str) -> float:
    """From the exec of a daemon with nothing to bring back until it answers."""
    wait_no_shard(folder)
    for path in segments(folder):  # of a shard that was quicker than its own kill
        path.unlink()
    began = time.monotonic()
    with started(folder, config) as daemon:
        status = wait_restored(daemon, 0)
        answered_s = time.monotonic() - began
        assert (status["reserve"]["on"], status["reserve"]["restored"]) == (True, 0)
    return answered_s


def _measure(folder: Path, *, kill: bool, busy: bool) -> dict[str, Any]:
    """Full pools, a restart, and how long until they are back, from the exec of the new daemon.

    How fast this machine is now is told by a daemon that has nothing to bring back: what the reserve takes
    is judged by that. ``back_s`` of a quiet machine is what bench/README quotes.
    """
    config = pools(RSA_2048=4, **{SPEC: 512, OTHER: 512})
    with running(folder, config + '[workers]\nscheduling = "normal"\n') as daemon:
        daemon.wait_full()
    if busy:  # makers that have an RSA_4096 in the making all the time
        config = config.replace("[pools.RSA_4096]\ntarget = 0", "[pools.RSA_4096]\ntarget = 1000")
    empty = folder / "empty"
    empty.mkdir(mode=0o700)
    _first_answer_s(empty, config)  # which also makes its keyring and ledger
    rounds: list[dict[str, Any]] = []
    while len(rounds) < ROUNDS and not (rounds and rounds[-1]["back_s"] <= rounds[-1]["at_most_s"]):
        with cpu_hogs(2 if busy else 0):
            first_s = _first_answer_s(empty, config)
        with started(folder, config) as daemon, cpu_hogs(2 if busy else 0):
            before = wait_restored(daemon, 700)
            ended = time.monotonic()
            daemon.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            daemon.process.wait(PATIENCE_S)
            began = time.monotonic()
            with started(folder, config) as new:
                status = wait_restored(new, int(held(before) * BACK_PART) + 1)
                back_s = time.monotonic() - began
                assert status["reserve"]["dropped_segments"] == {}
                assert balanced(status)
                assert new.stop() == 0
        reserve = status["reserve"]
        assert reserve["burnt_is_exact"] is not kill
        rounds.append(
            {
                "held": held(before), "restored": reserve["restored"], "back_s": round(back_s, 3),
                "first_answer_s": round(first_s, 3),
                "at_most_s": round(BACK_RATIO * first_s + BACK_MORE_S, 3),
                "stop_s": round(began - ended, 3), "burnt": reserve["burnt_last_restart"],
            }
        )  # fmt: skip
    assert rounds[-1]["back_s"] <= rounds[-1]["at_most_s"], rounds
    return {"rounds": rounds}


def before_any_maker(folder: Path) -> dict[str, Any]:
    """What is back is given out by a daemon none of whose makers has come up, nor ever will."""
    before = fill_and_stop(folder)
    with started(folder, SMALL, program("makerless_daemon")) as daemon:
        daemon.wait_log("serves on")
        wait_restored(daemon, held(before))
        assert len(set(take(daemon, held(before)))) == held(before)
        status = daemon.status()
        makers = [worker for worker in status["workers"] if worker["role"] == "maker"]
        assert [(maker["state"], bool(maker["pid"])) for maker in makers] == [("starting", False)]
        assert status["pools"][SPEC]["generated"] == 0
        assert balanced(status)
    return {"given_out": held(before)}


# --- never twice


def many_restarts(folder: Path) -> dict[str, Any]:
    """Under load, ended in each way in turn; what is taken in all lives together is never twice the same."""
    config = pools(**{SPEC: 256, OTHER: 256})
    taken: list[bytes] = []
    restored = 0
    for number in range(9):
        with started(folder, config) as daemon:
            daemon.wait_log("serves on")
            for _ in range(4):
                taken += take(daemon, 40) + take(daemon, 40, OTHER)
            status = daemon.status()
            assert balanced(status)
            assert (status["alarm"], status["issuing"]) == (None, True)
            restored += status["reserve"]["restored"]
            daemon.wait_full()
            if number % 3 == 0:
                assert daemon.stop() == 0
            elif number % 3 == 1:
                kill_alone(daemon)
            # else all of it is killed at once, shards too
    assert len(set(taken)) == len(taken) == 9 * 320
    assert restored > 1000, "much of it came from the reserve"
    return {"taken": len(taken), "restored": restored}


def killed_at_each_step(folder: Path) -> dict[str, Any]:
    told: dict[str, Told] = {}
    taken: list[bytes] = []
    for step in STEPS:
        before = fill_and_stop(folder)
        assert len(segments(folder)) == 1
        with started(folder, SMALL, [*program("dying_daemon"), step]) as dying:
            assert dying.process.wait(PATIENCE_S) == -signal.SIGKILL
            wait_no_shard(folder)
        with running(folder, SMALL) as daemon:
            daemon.wait_full()
            reserve = daemon.status()["reserve"]
            taken += take(daemon, 80)
        told[step] = (reserve["restored"], reserve["dropped_segments"])
        back: Told = (held(before), {})
        claimed: Told = (0, {"claimed_before": 1})
        gone: Told = (0, {})
        if step == "held":  # a draw may have gone with the daemon
            assert held(before) - DRAW <= told[step][0] <= held(before), told[step]
            continue
        wanted = {"before the claim": back, "claimed": claimed, "read": claimed}.get(step, gone)
        assert told[step] == wanted, (step, told[step])
    assert len(set(taken)) == len(taken) == 80 * len(STEPS)
    return {"steps": told}


def wait_no_shard(folder: Path) -> None:
    """Until what a dead daemon's shards seal is there: they are nobody's children."""
    deadline = time.monotonic() + PATIENCE_S
    needle = str(folder).encode()
    while time.monotonic() < deadline:
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                links = os.listdir(f"/proc/{entry}/fd")
                if int(entry) != os.getpid() and any(
                    os.readlink(f"/proc/{entry}/fd/{link}").encode() == needle + b"/reserve" for link in links
                ):
                    break
        else:
            return
        time.sleep(0.01)
    raise AssertionError("a shard lives on")


def _put_back(folder: Path, command: list[str] | None) -> tuple[int, dict[str, int]]:
    """Segments that were used are put back; pairs that came twice, and what was dropped."""
    fill_and_stop(folder)
    copies = folder / "copies"
    copies.mkdir()
    for path in segments(folder):
        shutil.copy(path, copies)
    taken: list[bytes] = []
    for _ in range(2):
        with started(folder, SMALL, command) as daemon:
            status = wait_restored(daemon, 0)
            daemon.wait_full()
            taken += take(daemon, 80)
            status = daemon.status()
        for path in segments(folder):
            path.unlink()
        for path in copies.iterdir():
            shutil.copy(path, folder / "reserve")
    return len(taken) - len(set(taken)), status["reserve"]["dropped_segments"]


def put_back(folder: Path) -> dict[str, Any]:
    assert _put_back(folder, None) == (0, {"claimed_before": 1})
    return {}


def put_back_unclaimed(folder: Path) -> dict[str, Any]:
    """The guard turned off: without a row for the claim the same pairs come again."""
    twice, dropped = _put_back(folder, program("unclaiming_daemon"))
    assert (twice > 0, dropped) == (True, {})
    return {"twice": twice}


# --- what may lie there


def leftovers(folder: Path) -> dict[str, Any]:
    """Each of the things that are no segment of ours is dropped unread; the honest one is back."""
    fill_and_stop(folder)
    [honest] = segments(folder)
    data = honest.read_bytes()
    header = segment.unpack_header(data)
    rest = data[segment.HEADER_BYTES :]
    made: Counter[str] = Counter()

    def plant(reason: str, write: Callable[[Path], object], **changes: Any) -> None:
        name = os.urandom(16)
        changed = header._replace(name=name)._replace(**changes)
        path = honest.with_name(segment.file_name(name))
        write(path)
        if path.is_file() and not path.stat().st_size:
            path.write_bytes(changed.pack() + rest)
        made[reason] += 1

    place = header.place
    plant("foreign_boot", Path.touch, place=place._replace(boot=b"x" * 16))
    plant("foreign_boot", Path.touch, place=place._replace(machine=b"x" * 16))
    plant("generation", Path.touch, place=place._replace(generation=place.generation + 1))
    plant("stale", Path.touch, life=header.life + 5)
    plant("damaged", Path.touch)  # the same bytes under another name
    plant("damaged", lambda path: path.write_bytes(_named(header, path) + rest[:-1] + bytes([rest[-1] ^ 1])))
    plant("damaged", lambda path: path.write_bytes(_named(header, path) + rest[:-100]))
    plant("format", lambda path: path.write_bytes(data[:50]))
    plant("format", lambda path: path.write_bytes(data))
    plant("format", lambda path: path.symlink_to(honest))
    plant("format", os.mkfifo)
    plant("format", Path.mkdir)
    plant("format", _huge)
    (folder / "reserve" / "note").touch()
    with running(folder, SMALL) as daemon:
        status = wait_restored(daemon, header.pairs)
        while sum((status := daemon.status())["reserve"]["dropped_segments"].values()) < made.total():
            time.sleep(0.01)
        assert status["reserve"]["dropped_segments"] == made
        assert status["reserve"]["restored"] == header.pairs
        assert (status["alarm"], status["issuing"], balanced(status)) == (None, True, True)
        assert not segments(folder)
        assert (folder / "reserve" / "note").exists()
    return {"dropped": made}


def _named(header: segment.Header, path: Path) -> bytes:
    return header._replace(name=bytes.fromhex(path.name.split(".")[0])).pack()


def _huge(path: Path) -> None:
    path.write_bytes(b"x")
    os.truncate(path, 1 << 30)


def full_folder(folder: Path) -> dict[str, Any]:
    """What does not fit is burnt, and nothing of it is left half written."""
    small = folder / "reserve"
    small.mkdir(mode=0o700)
    _mount(small, 16 * 1024)
    config = pools(**{SPEC: 512}) + "[workers]\nshards = 1\nmakers = 1\n"
    with running(folder, config) as daemon:
        daemon.wait_full()
        had = held(daemon.status())
        assert daemon.stop() == 0
        assert any("not all that it held could be sealed: less than 25% of" in line for line in daemon.log)
    assert not any(path.name.endswith((".segment", ".new")) for path in small.iterdir())
    with running(folder, config) as daemon:
        daemon.wait_full()
        reserve = daemon.status()["reserve"]
    assert (reserve["restored"], reserve["dropped_segments"]) == (0, {})
    assert reserve["burnt_is_exact"], "it ended as it should, and there was room for a note of that"
    assert reserve["burnt_last_restart"] >= had
    return {"burnt": reserve["burnt_last_restart"]}


def lost_ledger(folder: Path) -> dict[str, Any]:
    """A ledger that is missing, or an older copy: the reserve goes with it."""
    fill_and_stop(folder)
    state = folder / "state"
    old = folder / "old"
    shutil.copytree(state, old)
    told = []
    for has_old in (True, False):
        with running(folder, SMALL) as daemon:
            daemon.wait_full()
            take(daemon, 20)
            daemon.wait_full()
        assert segments(folder)
        for path in state.glob("ledger.db*"):
            path.unlink()
        for path in old.glob("ledger.db*") if has_old else ():
            shutil.copy(path, state)
        with running(folder, SMALL) as daemon:
            daemon.wait_full()
            status = daemon.status()
            told.append((bool(status["ledger"]["rolled_back"]), status["reserve"]["restored"]))
            assert set(status["reserve"]["dropped_segments"]) == {"ledger_rolled_back"}, status["reserve"]
            command = [sys.executable, "-m", "kpcache", "ledger", "acknowledge", "--socket", daemon.socket]
            subprocess.run(command, check=True, capture_output=True)
    assert told == [(True, 0), (True, 0)]
    return {}


# --- other ways to come back


def other_shape(folder: Path) -> dict[str, Any]:
    """Other numbers of shards, and a pool less."""
    told = []
    for shards, makers, targets in (
        (2, 2, {SPEC: 64, OTHER: 64}),
        (1, 1, {SPEC: 8, OTHER: 64}),
        (3, 3, {OTHER: 64}),
    ):
        with running(
            folder, pools(**targets) + f"[workers]\nshards = {shards}\nmakers = {makers}\n"
        ) as daemon:
            daemon.wait_full()
            status = daemon.status()
            assert balanced(status)
            told.append((status["reserve"]["restored"], status["reserve"]["dropped_pairs"]))
            before = {spec: status["pools"][spec]["held"] for spec in (SPEC, OTHER)}
            if len(told) < 3:
                kept = before
    assert told[0] == (0, {})
    assert told[1][0] > 64, "what is over the target is kept, and told"
    assert told[2] == (kept[OTHER], {"no_pool": kept[SPEC]})
    return {"told": told}


def late(folder: Path) -> dict[str, Any]:
    """A shard that was held up seals when the next daemon serves already."""
    with started(folder, SMALL) as daemon:
        daemon.wait_full()
        before = daemon.status()
        [shard] = daemon.workers()["shard"]
        with pidfd(shard) as ended:
            assert ended is not None
            os.kill(shard, signal.SIGSTOP)
            try:
                os.kill(daemon.process.pid, signal.SIGKILL)
                daemon.process.wait(PATIENCE_S)
                with running(folder, SMALL) as new:
                    new.wait_full()
                    assert new.status()["reserve"]["restored"] == 0
                    os.kill(shard, signal.SIGCONT)
                    status = wait_restored(new, held(before))
                    assert status["reserve"]["restored"] == held(before)
                    assert status["pools"][SPEC]["held"] > 64
                    assert balanced(status)
            finally:
                if not _is_over(ended):
                    os.kill(shard, signal.SIGKILL)
            wait_gone([ended], PATIENCE_S)
    return {"restored": held(before)}


def shared_folder(folder: Path) -> dict[str, Any]:
    """A second daemon that is told of the same folder has no reserve, and leaves the first one's alone."""
    before = fill_and_stop(folder)
    other = folder / "other"
    (other / "reserve").mkdir(mode=0o700, parents=True)
    other.chmod(0o700)
    subprocess.run(["mount", "--bind", folder / "reserve", other / "reserve"], check=True)
    with running(folder, SMALL) as daemon:
        wait_restored(daemon, held(before))
        with running(other, SMALL) as second:
            second.wait_full()
            reserve = second.status()["reserve"]
            cure = f"another daemon uses {other / 'reserve'}; set daemon.runtime_dir to another folder"
            assert (reserve["on"], reserve["why"].startswith(cure)) == (False, True), reserve
            assert any("no pair will wait out a restart: " + cure in line for line in second.log)
        daemon.wait_full()
        sealed = held(daemon.status())
    with running(folder, SMALL) as daemon:
        reserve = wait_restored(daemon, 1)["reserve"]
        assert (reserve["restored"], reserve["dropped_segments"]) == (sealed, {})
    return {"restored": sealed}


def _is_over(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def nothing_in_clear(folder: Path) -> dict[str, Any]:
    """No private key, nor the keyring's secret, is in what lies in memory, or in the log."""
    with running(folder, SMALL) as daemon:
        daemon.wait_full()
    log = list(daemon.log)
    [path] = segments(folder)
    copy = path.read_bytes()
    secret = document.decode((folder / "state" / "keyring.json").read_bytes()).reserve_secret
    with running(folder, SMALL) as daemon, daemon.client() as client:
        wait_restored(daemon, 1)
        answers = [client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=SPEC) for _ in range(60)]
        log += daemon.log
    told = copy + "\n".join(log).encode()
    assert len(secret) == 32
    for answer in answers:
        for part in (
            answer["PrivateKeyPlaintext"],
            answer["PrivateKeyPlaintext"][40:60],
            answer["PublicKey"][-32:],
        ):
            assert part not in told
    assert secret not in told
    assert secret.hex().encode() not in told
    return {}


TRIALS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "stopped": lambda folder: _measure(folder, kill=False, busy=False),
    "killed": lambda folder: _measure(folder, kill=True, busy=False),
    "stopped_busy": lambda folder: _measure(folder, kill=False, busy=True),
    "killed_busy": lambda folder: _measure(folder, kill=True, busy=True),
    **{
        each.__name__: each
        for each in (
            before_any_maker, many_restarts, killed_at_each_step, put_back, put_back_unclaimed, leftovers,
            full_folder, lost_ledger, other_shape, late, shared_folder, nothing_in_clear,
        )
    },
}  # fmt: skip


def _mount(folder: Path, size: int) -> None:
    options = f"size={size},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "kpcache-test", folder], check=True)


def main() -> None:
    folder, name = Path(sys.argv[1]), sys.argv[2]
    home = folder / "home"
    home.mkdir(mode=0o700)
    _mount(home, 256 * 1024 * 1024)
    print(json.dumps({name: TRIALS[name](home)}))


if __name__ == "__main__":
    main()
