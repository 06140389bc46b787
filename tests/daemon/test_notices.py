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


class FailingReporter(StuckReporter):
    """Fails at the lines whose numbers it was given, as a display with a defect would."""

    def __init__(self, *failing: int) -> None:
        super().__init__()
        self.let_go.set()
        self._failing = failing
        self._calls = 0

    def notice(self, text: str) -> None:
        self._calls += 1
        if self._calls in self._failing:
            self.lines.append("")
            raise ZeroDivisionError
        super().notice(text)


def say(stuck: FailingReporter, reporter: UnhurriedReporter, text: str) -> None:
    """Say it, and wait until it is written, or its failure counted."""
    reporter.notice(text)
    done = threading.Event()
    stuck.stopping = done.set  # type: ignore[method-assign]
    reporter.stopping()
    assert done.wait(10)


def test_a_line_at_which_the_reporter_fails_is_counted_and_the_next_ones_come() -> None:
    stuck = FailingReporter(1, 3)
    reporter = UnhurriedReporter(stuck)
    say(stuck, reporter, "a")  # fails
    say(stuck, reporter, "b")  # the second call tells of "a", the third fails at "b"
    reporter.notice("c")
    reporter.close()
    told = "1 lines were lost: the log did not take them"
    assert stuck.lines == ["", told, "", told, "c"]


def test_what_is_lost_with_the_word_about_it_is_not_forgotten() -> None:
    stuck = FailingReporter(1, 2)
    reporter = UnhurriedReporter(stuck)
    say(stuck, reporter, "a")  # fails
    say(stuck, reporter, "b")  # telling of "a" fails
    reporter.close()  # tells it at last
    assert stuck.lines == ["", "", "b", "1 lines were lost: the log did not take them"]
