"""What the HTTP listener answers: the metrics, and whether the daemon lives and is ready."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from kpcache.core import hosts
from kpcache.daemon.dispatcher import Gate
from kpcache.daemon.exposition import CONTENT_TYPE, Blocks, Exposition
from kpcache.daemon.notices import log_defect

METRICS: Final = b"/metrics"
LIVEZ: Final = b"/livez"
READYZ: Final = b"/readyz"

_METHODS: Final = (b"GET", b"HEAD")


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that is whole: its length is known before its first byte goes out."""

    status: int
    blocks: Blocks
    content_type: str = "text/plain; charset=utf-8"
    allow: str = ""  # the methods, where it is that which was wrong

    @property
    def content_length(self) -> int:
        return sum(map(len, self.blocks))


def line(status: int, text: str, allow: str = "") -> Answer:
    """An answer of one line."""
    return Answer(status, (f"{text}\n".encode(),), allow=allow)


class Readiness:
    """Whether a client would be served well now, in one line."""

    def __init__(self, gate: Gate, too_empty: Callable[[], str]) -> None:
        """``too_empty`` names a pool that is below the configured level; empty if none is."""
        self.is_serving = False  # its sockets take clients: to be set at that moment
        self._gate = gate
        self._too_empty = too_empty

    def why_not(self) -> str:
        """Empty if it is ready."""
        if self._gate.draining:
            return "draining: the daemon is about to stop"
        if not self._gate.issuing:
            return f"not issuing: {self._gate.refusal().message}"
        if not self.is_serving:
            return "starting: clients cannot connect yet"
        too_empty = self._too_empty()
        return f"not ready: {too_empty}" if too_empty else ""


class Pages:
    """``names``: hosts by which it may be asked, besides its addresses and localhost."""

    def __init__(self, exposition: Exposition, readiness: Readiness, names: Collection[str]) -> None:
        self._exposition = exposition
        self._readiness = readiness
        self._names = frozenset(names)

    async def answer(self, method: bytes, target: bytes, host: str, address: str) -> Answer:
        """``address``: the numeric one that the request came in at; empty for a Unix socket. Never raises but
        for a cancellation."""
        if not hosts.is_ours(host, address, self._names):
            return line(
                421,
                "this Host is not known here: ask by an address of this machine or as localhost, or add the "
                "name to [metrics] hosts in the daemon's configuration",
            )
        if method not in _METHODS:
            return line(405, "only GET and HEAD are answered here", allow="GET, HEAD")
        path = target.partition(b"?")[0]
        if path == METRICS:
            return await self._metrics()
        if path == LIVEZ:
            return line(200, "ok")
        if path == READYZ:
            why_not = self._readiness.why_not()
            return line(503, why_not) if why_not else line(200, "ok")
        return line(404, "there is nothing here; see /metrics, /livez and /readyz")

    async def _metrics(self) -> Answer:
        try:
            return Answer(200, await self._exposition.text(), CONTENT_TYPE)
        except Exception as error:
            log_defect("rendering the metrics", error)
            return line(500, "the metrics could not be rendered: a defect in kpcache; see the daemon's log")
