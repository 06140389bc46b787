"""The log: safe to print, and never waited for."""

import threading
from typing import Any

from kpcache.daemon.notices import MAX_UNWRITTEN, UnhurriedReporter


class StuckReporter:
    """A terminal stopped with Ctrl-S: its first line waits until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.caught_up = threading.Event()
        self.lines: list[str] = []

    def serving(self, status: dict[str, Any], *, socket: str, state_dir: str) -> None:
        self.lines.append(f"serving {socket} {state_dir} {status}")

    def progress(self, status: dict[str, Any]) -> None:
        self.lines.append(f"progress {status}")

    def full(self, status: dict[str, Any]) -> None:
        self.lines.append(f"full {status}")

    def notice(self, text: str) -> None:
        self.let_go.wait()
        self.lines.append(text)
        if len(self.lines) == MAX_UNWRITTEN:
            self.caught_up.set()

    def stopping(self) -> None:
        self.lines.append("stopping")


def test_a_stuck_log_holds_nobody_up_and_what_was_lost_is_told() -> None:
    stuck = StuckReporter()
    reporter = UnhurriedReporter(stuck)
    said = MAX_UNWRITTEN + 50
    for number in range(said):  # returns at once, or this test hangs
        reporter.notice(str(number))
    stuck.let_go.set()
    assert stuck.caught_up.wait(10)
    reporter.stopping()
    reporter.close()
    written = [line for line in stuck.lines if line.isdigit()]
    [told] = [line for line in stuck.lines if "lines were lost" in line]
    assert int(told.split()[0]) == said - len(written)
    assert stuck.lines[-1] == "stopping"


def test_every_call_arrives_in_order() -> None:
    stuck = StuckReporter()
    stuck.let_go.set()
    reporter = UnhurriedReporter(stuck)
    reporter.serving({"a": 1}, socket="/s", state_dir="/d")
    reporter.progress({"a": 2})
    reporter.notice("note")
    reporter.full({"a": 3})
    reporter.stopping()
    reporter.close()
    assert stuck.lines == ["serving /s /d {'a': 1}", "progress {'a': 2}", "note", "full {'a': 3}", "stopping"]
