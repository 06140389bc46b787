"""What the bench is doing, on stderr: a bar on a terminal, a line now and then elsewhere.

Nothing is drawn but when ``advance`` is called, between measurements: a display that refreshes itself
would run inside what is measured.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

_LINE_INTERVAL_S = 5.0


class Step:
    """One thing under way; ``advance`` says how far it is."""

    def __init__(self, label: str, total: float, bar: Progress | None, console: Console) -> None:
        self._label, self._total, self._bar, self._console = label, total, bar, console
        self._done = 0.0
        self._said = time.monotonic()
        if bar is not None:
            self._task = bar.add_task(label, total=total)
            bar.refresh()
        else:
            console.print(f"{label} ...", highlight=False)

    def advance(self, by: float = 1.0) -> None:
        """That much more of ``total`` is done."""
        self.at(self._done + by)

    def at(self, done: float) -> None:
        """``done`` of ``total``."""
        self._done = done
        if self._bar is not None:
            self._bar.update(self._task, completed=done)
            self._bar.refresh()
        elif time.monotonic() - self._said >= _LINE_INTERVAL_S:
            self._said = time.monotonic()
            self._console.print(f"{self._label}: {100 * done / self._total:.0f} %", highlight=False)


class Display:
    """Shows one step at a time."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)

    @contextmanager
    def step(self, label: str, total: float = 1.0) -> Iterator[Step]:
        """Show ``label`` while the block runs."""
        if not self._console.is_terminal:
            yield Step(label, total, None, self._console)
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, auto_refresh=False, transient=True) as bar:
            yield Step(label, total, bar, self._console)
