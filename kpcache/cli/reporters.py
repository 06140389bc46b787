"""What ``serve`` shows: lines for a log, or a live display for a person. Both go to stderr."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

from kpcache.cli.fill import fill_fraction
from kpcache.cli.output import as_line
from kpcache.client.address import find_socket

if TYPE_CHECKING:
    from rich.live import Live

# Of the work of filling, not of the pairs.
_PROGRESS_STEPS = (0.25, 0.5, 0.75)


class PlainReporter:
    """A line for each event; while pools fill, one at every quarter."""

    def __init__(self, stream: IO[str], environ: Mapping[str, str] = os.environ) -> None:
        self._stream = stream
        self._environ = environ
        self._steps = list(_PROGRESS_STEPS)

    def serving(self, status: dict[str, Any], *, socket: str, state_dir: str) -> None:
        for line in greeting(status, socket, state_dir, self._environ):
            self._line(line)

    def progress(self, status: dict[str, Any]) -> None:
        done = fill_fraction(status["pools"])
        reached = [step for step in self._steps if step <= done]
        if reached:
            self._steps = self._steps[len(reached) :]
            self._line(f"pools are {reached[-1]:.0%} full")

    def full(self, _status: dict[str, Any]) -> None:
        self._line("pools are full")

    def notice(self, text: str) -> None:
        self._line(text)

    def stopping(self) -> None:
        self._line("stopping: requests under way are finished first")

    def _line(self, text: str) -> None:
        # A log that is gone must not stop the service.
        with contextlib.suppress(OSError, ValueError):
            print(as_line(text), file=self._stream, flush=True)


class LiveReporter:
    """The pools as a table that moves while they fill; afterwards, lines."""

    def __init__(self, stream: IO[str], environ: Mapping[str, str] = os.environ) -> None:
        from kpcache.cli.tables import console_for

        self._console = console_for(stream)
        self._environ = environ
        self._live: Live | None = None

    def serving(self, status: dict[str, Any], *, socket: str, state_dir: str) -> None:
        from rich.live import Live

        from kpcache.cli.tables import pools_table

        for line in greeting(status, socket, state_dir, self._environ):
            self.notice(line)
        with self._while_terminal_lasts():
            self._live = Live(
                pools_table(status),
                console=self._console,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start(refresh=True)

    def progress(self, status: dict[str, Any]) -> None:
        from kpcache.cli.tables import pools_table

        if self._live is not None:
            with self._while_terminal_lasts():
                self._live.update(pools_table(status), refresh=True)

    def full(self, status: dict[str, Any]) -> None:
        self.progress(status)
        self._end_display()
        self.notice("pools are full")

    def notice(self, text: str) -> None:
        with self._while_terminal_lasts():
            self._console.print(as_line(text), soft_wrap=True)

    def stopping(self) -> None:
        self._end_display()
        self.notice("stopping: requests under way are finished first")

    def _end_display(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            with self._while_terminal_lasts():
                live.stop()

    @contextlib.contextmanager
    def _while_terminal_lasts(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):
            # Gone, and so for good: without this, rich keeps all that it could not write.
            self._console.quiet = True


def greeting(status: dict[str, Any], socket: str, state_dir: str, environ: Mapping[str, str]) -> list[str]:
    """What serves, where, and what to try next; ``--socket`` only where a client would not find it."""
    option = "" if find_socket(None, environ) == socket else f" --socket {socket}"
    return [
        f"{status['version']} serves on {socket}; keys and state are in {state_dir}",
        f"pools are filling. In another terminal, try: kpcache get RSA_2048{option}",
    ]
