"""``serve`` starts itself again once, to have freed memory overwritten: in the same process, and no other."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from kpcache.cli.main import main
from kpcache.worker.wiping import missing
from tests.system.harness import Daemon, pools, running

MODULE = [sys.executable, "-m", "kpcache"]
STARTED_AGAIN = [sys.executable, "-X", "kpcache_started_again"]


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in missing({}):
        monkeypatch.delenv(name, raising=False)


def environment(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_text().rstrip("\0").split("\0")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def arguments(daemon: Daemon) -> list[str]:
    return Path(f"/proc/{daemon.process.pid}/cmdline").read_text().rstrip("\0").split("\0")


def settings(pid: int) -> dict[str, str]:
    return {name: value for name, value in environment(pid).items() if name in missing({})}


@pytest.mark.parametrize(
    "command",
    [MODULE, [sys.executable, "-P", "-W", "error", "-m", "kpcache"],
     [str(Path(sys.executable).with_name("kpcache"))],
     # Settings that come from a pipe can be read once.
     ["bash", "-c", 'exec "$0" -m kpcache serve --config <(cat "$3")', sys.executable]],
    ids=["module", "options", "command", "settings from a pipe"],
)  # fmt: skip
def test_the_daemon_and_its_workers_wipe_whatever_way_it_is_started(
    command: list[str], tmp_path: Path
) -> None:
    with running(tmp_path, pools(), command) as daemon:
        status = daemon.status()
        # The options it was started with are there, once.
        assert arguments(daemon)[1:3] == STARTED_AGAIN[1:]  # a script may name another link to Python
        assert arguments(daemon).count("-X") == 1
        assert (command is MODULE) or ("-P" in arguments(daemon)) == ("-P" in command)
        workers = [pid for pids in daemon.workers().values() for pid in pids]
        assert len(workers) == 4
        assert all(settings(pid) == missing({}) for pid in (daemon.process.pid, *workers))
    memory = dict(status["memory"])
    assert memory.pop("swap") in ("none", "possible", "unknown")
    assert memory == {"wiped_on_free": True, "dumpable": False, "core_limit": 0, "locked": False}
    assert not any("not overwritten" in line for line in daemon.log)


@pytest.mark.parametrize(
    ("chosen", "command", "again", "wiped"),
    [
        # All is set: there is nothing to start again for.
        ({**missing({}), "MALLOC_PERTURB_": "7"}, MODULE, False, True),
        ({"MALLOC_PERTURB_": "7"}, MODULE, True, True),
        ({"MALLOC_PERTURB_": "0"}, MODULE, False, False),
        # Python's own allocator overwrites nothing.
        ({"PYTHONMALLOC": "pymalloc"}, MODULE, True, False),
        # With -I Python takes no setting of its own from the environment.
        ({}, [sys.executable, "-I", "-m", "kpcache"], True, False),
        # As if what starts Python took the variables away: there is no third start.
        ({}, [*STARTED_AGAIN, "-m", "kpcache"], False, False),
    ],
    ids=["all set", "a byte", "none wanted", "pymalloc", "isolated", "started again"],
)
def test_an_operators_choice_is_kept_and_what_is_in_force_is_told(
    chosen: dict[str, str],
    command: list[str],
    again: bool,
    wiped: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    with running(tmp_path, pools(), command) as daemon:
        assert daemon.status()["memory"]["wiped_on_free"] is wiped
        begun_again = arguments(daemon)[1:3] == STARTED_AGAIN[1:]
        assert begun_again == (again or command[:3] == STARTED_AGAIN)
        now = settings(daemon.process.pid)
        assert now == ({**missing(chosen), **chosen} if again else chosen)
    assert any("not overwritten" in line for line in daemon.log) is not wiped


class StartedAgainError(Exception):
    """In place of the second start."""


def test_serve_starts_again_before_it_reads_anything_and_no_other_command_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[tuple[str, list[str], dict[str, str]]] = []

    def execve(*arguments: Any) -> None:
        started.append(arguments)
        raise StartedAgainError

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "kpcache", "serve"])
    for command in (
        ["check-config"],
        ["status"],
        ["ledger", "acknowledge"],
        ["wait", "--timeout", "0"],
        ["get", "RSA_2048"],
    ):
        nowhere = ["/does/not/exist"] if command == ["check-config"] else ["--socket", "/does/not/exist"]
        assert main([*command, *nowhere]) in (2, 3)
    assert not started
    with pytest.raises(StartedAgainError):
        main(["serve", "--config", "/does/not/exist"])
    [(program, argv, environ)] = started
    assert program == sys.executable
    assert argv == [*STARTED_AGAIN, "-m", "kpcache", "serve"]
    assert environ.items() >= missing({}).items()
    assert environ["PATH"] == os.environ["PATH"]


def test_a_second_start_that_fails_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def execve(*_: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(os, "execve", execve)
    assert main(["serve", "--config", "/does/not/exist"]) == 2
