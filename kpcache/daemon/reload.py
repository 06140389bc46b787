"""Reads the file of settings again while the daemon serves, and has what can change in force.

All or nothing: the file is read and checked first, in a thread, since a disk or a file server can hang; then
everything is applied without a checkpoint in between, so that no request sees half of it. A file that is
refused changes nothing.
"""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

import trio

from kpcache.core.reload import Difference, after_reload, compare
from kpcache.core.settings import Config
from kpcache.daemon.notices import log, log_defect
from kpcache.errors import ConfigError, KMSInternalException, KMSInvalidStateException, KpcacheError

# A file of a few kilobytes. One that takes longer hangs.
READ_TIMEOUT_S: Final = 5.0
APPLIED: Final = "applied"
REFUSED: Final = "refused"


class Source(NamedTuple):
    """Where the settings come from. ``read`` reads ``file`` again; it may block. Raises ``ConfigError``."""

    file: str
    read: Callable[[], Config]


class Reloader:
    """``reload`` for an administrator, ``ask`` for a signal; ``run`` must be running for the latter.

    For metrics: ``outcomes`` counts reloads by ``APPLIED`` and ``REFUSED``; ``last_successful`` and
    ``last_success_s`` (Unix seconds) tell of the last one, at first of the reading at the start.
    """

    def __init__(
        self,
        config: Config,
        source: Source | None,
        apply: Callable[[Config], None],
        announce: Callable[[bool], None] = lambda _begins: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``source`` is None where there is no file. ``apply`` may be called again with what is in force, and
        has no checkpoint. ``announce`` is told when a reload begins (True) and when it is over (False)."""
        self.outcomes = Counter({APPLIED: 0, REFUSED: 0})
        self.last_successful = True
        self.last_success_s = now()
        self._in_force = config
        self._source = source
        self._apply = apply
        self._announce = announce
        self._now = now
        self._last_s = self.last_success_s
        self._error = ""
        self._waiting: tuple[str, ...] = ()
        self._asked = trio.Event()
        self._one_at_a_time = trio.Lock()
        # A read that hangs keeps its thread; the next ones wait for it, and no thread more is taken.
        self._threads = trio.CapacityLimiter(1)

    def status(self) -> dict[str, Any]:
        """For ``kpcache.Status``: ``at`` is in Unix seconds; ``file`` is empty where there is none."""
        return {
            "file": self._source.file if self._source else "",
            "last_reload": {"at": self._last_s, "successful": self.last_successful, "error": self._error},
            "waits_for_restart": list(self._waiting),
        }

    def ask(self) -> None:
        """Have ``run`` reload, once for all who ask before it begins to read."""
        self._asked.set()

    async def run(self) -> None:
        """Reload when asked to, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            with suppress(KpcacheError):  # it has been logged
                await self.reload()

    async def reload(self) -> tuple[dict[str, Any], list[str]]:
        """Read the file again and have it in force: what was done, and what of it is for the log.

        Raises ``KMSInvalidStateException`` if it is refused, with what is wrong and the cure, or
        ``KMSInternalException`` after a defect.
        """
        if self._source is None:
            log.warning("there is nothing to reload: %s", _NO_FILE)
            raise KMSInvalidStateException(f"There is nothing to reload: {_NO_FILE}")
        async with self._one_at_a_time:
            self._announce(True)
            try:
                difference = self._bring_in_force(await self._read(self._source))
            except ConfigError as error:
                log.error("the settings stay as they are: %s", error.message)
                self._note(error.message)
                raise KMSInvalidStateException(f"The settings stay as they are: {error.message}") from None
            except Exception as error:
                log_defect("a reload", error)
                self._note("an internal error, which the log has: restart the daemon")
                raise KMSInternalException("an internal error; the daemon's log has the details") from None
            finally:
                self._announce(False)
            self._note("")
            return self._told(self._source.file, difference)

    async def _read(self, source: Source) -> Config:
        try:
            with trio.move_on_after(READ_TIMEOUT_S):
                return await trio.to_thread.run_sync(
                    source.read, abandon_on_cancel=True, limiter=self._threads
                )
        except RuntimeError as error:
            raise ConfigError(f"{source.file}: there is no thread to read it in ({error})") from error
        raise ConfigError(
            f"{source.file}: it could not be read within {READ_TIMEOUT_S:g} s; see whether the disk or the "
            "file server that it lies on answers"
        )

    def _bring_in_force(self, wanted: Config) -> Difference:
        difference = compare(self._in_force, wanted)
        config = after_reload(self._in_force, wanted)
        self._apply(config)
        self._in_force, self._waiting = config, difference.at_a_restart
        return difference

    def _note(self, error: str) -> None:
        self._last_s = self._now()
        self._error = error
        self.last_successful = not error
        self.outcomes[REFUSED if error else APPLIED] += 1
        if not error:
            self.last_success_s = self._last_s

    def _told(self, file: str, difference: Difference) -> tuple[dict[str, Any], list[str]]:
        changed = ", ".join(difference.at_once) or "nothing"
        log.info("%s was read again; changed: %s", file, changed)
        if difference.at_a_restart:
            log.warning(
                "changed in %s, and not in force until the daemon is restarted: %s",
                file, ", ".join(difference.at_a_restart),
            )  # fmt: skip
        answer = {
            "File": file,
            "Changed": list(difference.at_once),
            "WaitsForRestart": list(difference.at_a_restart),
        }
        return answer, [f"{len(difference.at_once)} settings changed"]


_NO_FILE: Final = (
    "this daemon was started without a file of settings; start it with kpcache serve --config FILE"
)
