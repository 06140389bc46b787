"""The settings of a daemon that serves change under its clients, and none of them notices."""

import contextlib
import itertools
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from kpcache.client.connection import Connection
from kpcache.core.specs import MAKEABLE
from kpcache.errors import KMSInvalidStateException
from tests.system.harness import PATIENCE_S, Daemon, pidfd, pools, running, wait_gone
from tests.system.test_admin import Admin

QUICK = "ECC_NIST_P256"
CLIENTS, RELOADS = 8, 50
# Or makers would be at work on those all the while.
NO_OTHERS = "".join(f"[pools.{spec}]\ntarget = 0\n" for spec in MAKEABLE if spec != QUICK)


def write(daemon: Daemon, config: str | bytes, *, whole: bool = False) -> str:
    """A file of settings for the next reload; ``whole``: with nothing of ours above. Returns its path."""
    path = daemon.folder / "kpcache.toml"
    text = config if isinstance(config, bytes) else config.encode()
    metrics = "" if b"[metrics]" in text else '[metrics]\nlisten = ""\n'  # as the harness has it
    head = (
        f'{metrics}[daemon]\nsocket = "{daemon.socket}"\nstate_dir = "{daemon.state_dir}"\n'
        f'runtime_dir = "{daemon.folder / "reserve"}"\n'
    )
    new = path.with_suffix(".new")
    new.write_bytes(text if whole else head.encode() + text)
    new.replace(path)
    return str(path)


def reload_by_signal(daemon: Daemon) -> dict[str, Any]:
    """SIGHUP, until its reload is over: what the status tells of it."""
    before = daemon.status()["config"]["last_reload"]["at"]
    daemon.process.send_signal(signal.SIGHUP)
    after = until(daemon, lambda status: bool(status["config"]["last_reload"]["at"] != before))
    return dict(after["config"])


def until(daemon: Daemon, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first status of which that is true; each is a round trip."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds(status := daemon.status()):
        assert time.monotonic() < deadline, status
    return status


def kpcache(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kpcache", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_S)


def wait_served(publics: list[list[bytes]], failures: list[Any]) -> None:
    """Until every client has been given one more pair at least."""
    before, deadline = [len(mine) for mine in publics], time.monotonic() + PATIENCE_S
    while not failures and any(len(mine) <= had for mine, had in zip(publics, before, strict=True)):
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("reload"), pools(**{QUICK: 50})) as daemon:
        yield daemon


def test_fifty_reloads_under_eight_clients_and_no_client_notices(daemon: Daemon) -> None:
    stop, failures, publics = threading.Event(), [], list[list[bytes]]()

    def ask(mine: list[bytes]) -> None:
        """On one connection from beginning to end."""
        with contextlib.closing(Connection.open(daemon.socket, PATIENCE_S, os.environ)) as connection:
            members = {"KeyId": "alias/kpcache", "KeyPairSpec": QUICK}
            while not stop.is_set():
                error, result = connection.call("GenerateDataKeyPair", [members], PATIENCE_S)
                if error is not None:
                    failures.append(error)
                    return
                mine.append(result["PublicKey"])

    def client(mine: list[bytes]) -> None:
        try:
            ask(mine)
        except Exception as error:
            failures.append(error)

    before = daemon.status()
    threads = []
    for _ in range(CLIENTS):
        publics.append([])
        threads.append(threading.Thread(target=client, args=(publics[-1],)))
        threads[-1].start()
    targets = itertools.cycle(
        [("200", ""), ("0", "[[limits]]\nrate_per_s = 1e6\nburst = 1000000\n"), ('"auto"', "")]
    )
    try:
        with Admin(daemon) as admin:
            for number in range(RELOADS):
                target, limits = next(targets)
                write(
                    daemon,
                    f"{NO_OTHERS}[pools.{QUICK}]\ntarget = {target}\nmax_age_s = {number % 2 * 10}\n"
                    f"[requests]\nwait_timeout_s = {20 + number}\nkeep_back_percent = {number}\n"
                    f"max_in_flight_per_connection = {1 + number}\n{limits}",
                )
                if number % 2:
                    assert reload_by_signal(daemon)["last_reload"]["successful"]
                else:
                    assert f"pools.{QUICK}.target" in admin.call("Reload")["Changed"]
                wait_served(publics, failures)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    everything = [public for mine in publics for public in mine]
    assert len(set(everything)) == len(everything)
    after = daemon.status()
    assert after["clients"]["cut"] == before["clients"]["cut"]
    pool = after["pools"][QUICK]
    assert pool["issued"] - before["pools"][QUICK]["issued"] == len(everything)
    assert pool["generated"] + pool["restored"] == sum(
        pool[place] for place in ("issued", "discarded", "held", "ready", "in_hand")
    )
    with contextlib.closing(Connection.open(daemon.socket, PATIENCE_S, os.environ)) as connection:
        _, ping = connection.call("kpcache.Ping", [{}], PATIENCE_S)
    assert (ping["MaxWaitSeconds"], ping["MaxInFlight"]) == (19 + RELOADS, RELOADS)


BAD: dict[str, tuple[str | bytes, str]] = {
    "a value out of range": ("[pools.RSA_2048]\ntarget = -1\n", "pools.RSA_2048.target = -1: must be"),
    "a wrong type": ('[requests]\nmax_connections = "many"\n', "requests.max_connections = 'many': must be"),
    "an unknown key": ("[requests]\nwait_timeout = 3\n", "did you mean wait_timeout_s?"),
    "two that do not fit": (
        "[pools.RSA_2048]\ntarget = 5\nlow_water = 6\n", "pools.RSA_2048.low_water = 6: must be at most",
    ),
    "an unknown level": ('log_level = "loud"\n', "daemon.log_level = 'loud': must be one of"),
    "a limit without its rate": ("[[limits]]\nburst = 3\n", "limits[0].rate_per_s: must be given"),
    "no TOML": ("[pools\n", "not TOML"),
    "half a file": ('socket = "/x', "not TOML"),
    "no text": (b"\xff\xfe\x00", "not TOML"),
    "nested without end": (b"x = " + b"[" * 100_000, "not TOML"),
    "too much of it": (b"#" * 1_100_000, "larger than"),
}  # fmt: skip


def unchanged(daemon: Daemon) -> dict[str, Any]:
    """What a reload could have changed, and of which nothing was."""
    status = daemon.status()
    return {
        "targets": {spec: (pool["target"], pool["low_water"]) for spec, pool in status["pools"].items()},
        "level": status["ready_level"],
        "waits": status["config"]["waits_for_restart"],
    }


def test_a_bad_file_changes_nothing_and_the_place_is_told(daemon: Daemon) -> None:
    good = pools(**{QUICK: 30})
    write(daemon, good)
    with Admin(daemon) as admin:
        admin.call("Reload")
        before = unchanged(daemon)
        for name, (config, told) in BAD.items():
            path = write(daemon, config, whole=isinstance(config, bytes) or name == "half a file")
            with pytest.raises(KMSInvalidStateException) as caught:
                admin.call("Reload")
            assert told in caught.value.message, name
            assert path in caught.value.message, name
            assert unchanged(daemon) == before, name
            last = daemon.status()["config"]["last_reload"]
            assert not last["successful"]
            assert told in last["error"], name
            assert len(last["error"]) < 500, name
        assert told in daemon.wait_log("larger than")
        write(daemon, good)
        assert admin.call("Reload") == {"File": path, "Changed": [], "WaitsForRestart": []}
    assert daemon.status()["config"]["last_reload"]["error"] == ""


def test_what_is_no_file_any_more_is_refused_at_once(daemon: Daemon) -> None:
    path = Path(write(daemon, NO_OTHERS))
    with Admin(daemon) as admin:
        path.unlink()
        with pytest.raises(KMSInvalidStateException, match="No such file"):
            admin.call("Reload")
        path.mkdir()
        with pytest.raises(KMSInvalidStateException, match="Is a directory"):
            admin.call("Reload")
        path.rmdir()
        os.mkfifo(path)
        with pytest.raises(KMSInvalidStateException, match="no regular file"):
            admin.call("Reload")
        path.unlink()
        path.symlink_to("/dev/zero")
        with pytest.raises(KMSInvalidStateException, match="no regular file"):
            admin.call("Reload")
    write(daemon, NO_OTHERS)


def test_the_command_tells_what_was_done_and_what_waits(daemon: Daemon, tmp_path: Path) -> None:
    path = write(
        daemon, pools(**{QUICK: 40}) + '[metrics]\nlisten = "[::1]:1"\n[workers]\nscheduling = "batch"\n'
    )
    done = kpcache("reload", "--socket", daemon.socket)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{path} was read again" in done.stdout
    assert "not in force until the daemon is restarted: workers.scheduling, metrics.listen" in done.stdout
    assert daemon.status()["config"]["waits_for_restart"] == ["workers.scheduling", "metrics.listen"]
    daemon.wait_log(f"changed in {path}, and not in force until the daemon is restarted: workers.scheduling")
    done = kpcache("reload", "--json", "--config", path)
    assert (done.returncode, '"WaitsForRestart"' in done.stdout) == (0, True)
    write(daemon, f"[pools.{QUICK}]\ntarget = -3\n")
    done = kpcache("reload", "--socket", daemon.socket)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"pools.{QUICK}.target = -3: must be" in done.stderr
    assert kpcache("reload", "--socket", str(tmp_path / "nobody.sock")).returncode == 3
    write(daemon, pools(**{QUICK: 40}))
    assert reload_by_signal(daemon)["waits_for_restart"] == []


def ask_in_vain(daemon: Daemon, method: str) -> None:
    """A request that is refused, which is told at debug."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(daemon.socket)
        sock.sendall(msgpack.packb([0, 1, method, [{}]]))
        assert b"There is no method" in sock.recv(65536)


def test_the_log_level_is_turned_up_and_down_again(daemon: Daemon) -> None:
    write(daemon, f'log_level = "debug"\n{NO_OTHERS}')
    reload_by_signal(daemon)
    ask_in_vain(daemon, "Told")
    daemon.wait_log("Told")
    write(daemon, f'log_level = "error"\n{NO_OTHERS}')
    reload_by_signal(daemon)
    ask_in_vain(daemon, "Untold")
    write(daemon, f'log_level = "debug"\n{NO_OTHERS}')
    reload_by_signal(daemon)
    ask_in_vain(daemon, "Told again")
    daemon.wait_log("Told again")
    assert not any("Untold" in line for line in daemon.log)


def test_settings_from_a_pipe_cannot_be_read_again(tmp_path: Path) -> None:
    """It starts with them all the same, and says what to do instead."""
    script = f"cat '{tmp_path}/kpcache.toml' | '{sys.executable}' -m kpcache serve --config /dev/stdin"
    with running(tmp_path, pools(**{QUICK: 4}), ["sh", "-c", script, "sh"]) as daemon:
        done = kpcache("reload", "--socket", daemon.socket)
        assert done.returncode == 1
        assert "/dev/stdin: this is no regular file" in done.stderr
        assert "--config" in done.stderr
        served = [pid for pid in daemon.all_pids() if "serve" in _command(pid) and "cat" not in _command(pid)]
        os.kill(served[-1], signal.SIGTERM)
        assert daemon.process.wait(PATIENCE_S) == 0


def _command(pid: int) -> str:
    return Path("/proc", str(pid), "cmdline").read_bytes().replace(b"\0", b" ").decode()


_HEED_HANGUPS = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_sighup_in_the_start_and_in_the_stop_breaks_nothing(tmp_path: Path) -> None:
    # What was started under nohup, as these tests may be, would outlive a SIGHUP anyway.
    command = [sys.executable, "-c", _HEED_HANGUPS, sys.executable, "-m", "kpcache"]
    daemon = Daemon(tmp_path, pools(**{QUICK: 4}), command)
    try:
        while not (daemon.state_dir / "lock").exists():  # from here on it has something to lose
            assert daemon.process.poll() is None
        while not any("serves on" in line for line in daemon.log):
            daemon.process.send_signal(signal.SIGHUP)
            assert daemon.process.poll() is None, daemon.log
            time.sleep(0.002)  # a spin would keep it from starting at all
        daemon.process.send_signal(signal.SIGTERM)
        while daemon.process.poll() is None:
            daemon.process.send_signal(signal.SIGHUP)
            time.sleep(0.002)
        assert daemon.process.returncode == 0, daemon.log
        assert not os.path.exists(daemon.socket)
    finally:
        daemon.kill()


# --- the terminal

# Takes the terminal that it is named, as a login shell would, and becomes what it is told to.
_TAKE_TERMINAL = """
import os, signal, sys
os.close(os.open(sys.argv[1], os.O_RDWR))
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[2] == "nohup" else signal.SIG_DFL)
os.execv(sys.argv[3], sys.argv[3:])
"""


@contextlib.contextmanager
def on_a_terminal(tmp_path: Path, how: str, *before: str) -> Iterator[tuple[Daemon, Callable[[], None]]]:
    """A daemon on a terminal of its own, and what closes that terminal's window."""
    master, slave = pty.openpty()
    with contextlib.ExitStack() as stack:
        hang_up = stack.enter_context(contextlib.ExitStack())
        hang_up.callback(os.close, master)
        take = [sys.executable, "-c", _TAKE_TERMINAL, os.ttyname(slave), how]
        command = [*take, *before, sys.executable, "-m", "kpcache"]
        daemon = Daemon(tmp_path, pools(**{QUICK: 4}), command)
        stack.callback(daemon.kill)
        daemon.wait_log("serves on")
        os.close(slave)
        yield daemon, hang_up.close


def test_a_sighup_reloads_while_the_terminal_is_there_and_stops_when_it_is_gone(tmp_path: Path) -> None:
    with on_a_terminal(tmp_path, "plain") as (daemon, hang_up):
        write(daemon, pools(**{QUICK: 6}))
        assert reload_by_signal(daemon)["last_reload"]["successful"]
        assert daemon.status()["pools"][QUICK]["target"] == 6
        hang_up()
        assert daemon.process.wait(PATIENCE_S) == 0
        daemon.wait_log("stopping")


def test_under_nohup_it_outlives_its_terminal(tmp_path: Path) -> None:
    with on_a_terminal(tmp_path, "nohup") as (daemon, hang_up):
        before = daemon.status()["config"]["last_reload"]["at"]
        hang_up()
        until(daemon, lambda status: bool(status["config"]["last_reload"]["at"] != before))
        write(daemon, pools(**{QUICK: 6}))
        assert reload_by_signal(daemon)["last_reload"]["successful"]
        assert daemon.stop() == 0


def test_in_the_foreground_of_a_shell_that_is_killed_it_stops(tmp_path: Path) -> None:
    """Its terminal is taken away only after it was told, which must not be taken for a wish to reload."""
    with on_a_terminal(tmp_path, "plain", "/bin/sh", "-c", '"$@"; true', "sh") as (daemon, _):
        with contextlib.ExitStack() as stack:
            pids = [stack.enter_context(pidfd(pid)) for pid in daemon.all_pids()]
            _, served, *_ = [fd for fd in pids if fd is not None]
            # Nobody's child any more when the shell is dead, and not among those that are ended with it.
            stack.callback(_end, served)
            daemon.process.kill()
            daemon.wait_log("stopping")
            wait_gone([fd for fd in pids if fd is not None], PATIENCE_S)
        assert not os.path.exists(daemon.socket)


def test_a_terminal_that_goes_without_another_word_is_missed_soon(tmp_path: Path) -> None:
    """One that is not in the foreground, of a shell that ignores the hang-up, is not told of it."""
    own_group = "import os; os.setpgid(0, 0)" + _HEED_HANGUPS
    shell = ["/bin/sh", "-c", "trap '' HUP; \"$@\"; true", "sh", sys.executable, "-c", own_group]
    with on_a_terminal(tmp_path, "plain", *shell) as (daemon, hang_up):
        served = daemon.all_pids()[1]
        before = daemon.status()["config"]["last_reload"]["at"]
        os.kill(served, signal.SIGHUP)
        until(daemon, lambda status: bool(status["config"]["last_reload"]["at"] != before))
        hang_up()
        daemon.wait_log("stopping")
        assert daemon.process.wait(PATIENCE_S) == 0


def _end(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, signal.SIGKILL)
