"""Runs ``kpcache keyring`` for tests: through pipes, or on a terminal that a test types on."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.system.harness import PATIENCE_S

KPCACHE = [sys.executable, "-m", "kpcache"]
# Without capabilities the kernel's rules on files and processes hold for root too.
ORDINARY = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
Done = subprocess.CompletedProcess[str]


def environment(**more: str) -> dict[str, str]:
    """This process's, without a socket named in it; only what is in ``more`` is added."""
    return {name: value for name, value in os.environ.items() if name != "KPCACHE_SOCKET"} | more


def keyring(
    folder: Path, *args: str, config: bool = True, prefix: Sequence[str] = (), stdin: str = "", **environ: str
) -> Done:
    """``kpcache keyring ARGS`` with ``folder/kpcache.toml`` and in ``folder``; never on a terminal."""
    option = ["--config", str(folder / "kpcache.toml")] if config else []
    return subprocess.run(
        [*prefix, *KPCACHE, "keyring", *args, *option],
        cwd=folder,
        env=environment(**environ),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def answer(folder: Path, *args: str) -> Any:
    """What it prints with ``--json``; fails if it fails."""
    done = keyring(folder, *args, "--json")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


def said(folder: Path, *args: str) -> str:
    """What it prints for people; fails if it fails."""
    done = keyring(folder, *args)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def secret_file(path: Path, text: str) -> str:
    path.touch(mode=0o600)
    path.write_text(text)
    return str(path)


class Typist:
    """A command in a session of its own with a terminal for all three streams."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._screen, terminal = pty.openpty()
        self.shown = ""
        self._read_to = 0
        # setsid --ctty makes it the session's terminal, which /dev/tty then means.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            cwd=folder,
            env=environment(TERM="dumb"),
        )
        os.close(terminal)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._screen)

    def wait_for(self, pattern: str) -> str:
        """Read on until this is shown, behind what was waited for before; the text that matched."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := re.compile(pattern).search(self.shown, self._read_to)):
            assert self._read_some(deadline - time.monotonic()), f"{pattern!r} did not come: {self.shown!r}"
        self._read_to = found.end()
        return found.group()

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode() + b"\n")

    def end(self) -> int:
        """The exit code, once everything that was shown has been read."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read_some(deadline - time.monotonic()):
            pass
        return self.process.wait(PATIENCE_S)

    def _read_some(self, timeout_s: float) -> bool:
        readable, _, _ = select.select([self._screen], [], [], max(timeout_s, 0))
        try:
            data = os.read(self._screen, 65536) if readable else b""
        except OSError:  # EIO: nobody has the terminal any more
            data = b""
        self.shown += data.decode()
        return bool(data)
