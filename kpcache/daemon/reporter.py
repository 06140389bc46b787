"""What the daemon tells the person or the log that watches it; the command line decides how it looks."""

from typing import Any, Protocol


class Reporter(Protocol):
    """Called from the daemon's loop: every method returns at once and never raises."""

    def serving(self, status: dict[str, Any], *, socket: str, state_dir: str) -> None:
        """Requests are answered from now on."""

    def progress(self, status: dict[str, Any]) -> None:
        """About four times a second while the pools fill for the first time."""

    def full(self, status: dict[str, Any]) -> None:
        """Every pool has reached its target for the first time."""

    def notice(self, text: str) -> None:
        """One line for the log, free of control characters."""

    def stopping(self) -> None:
        """The drain has begun."""
