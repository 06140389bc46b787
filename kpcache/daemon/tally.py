"""What is counted of requests: how long each took and how it ended, and what was refused and why.

A request's time runs from the return of the ``recv`` that brought its last byte until its answer was handed
to the kernel or, where the socket does not take it, to the outbox: how fast a client reads is not ours.

Whatever clients send, labels are of closed sets: what is in none of them is ``OTHER``.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from kpcache.core.histogram import Histogram, edges
from kpcache.core.operations import OPERATIONS
from kpcache.core.specs import MAKEABLE
from kpcache.core.wire import Request
from kpcache.errors import WIRE_CLASSES, InternalError, KpcacheError

OTHER: Final = "other"
NONE: Final = "none"
# Who has the key: the embedded KMS.
KEYRING: Final = "keyring"

HIT: Final = "hit"  # answered at once
WAITED: Final = "waited"  # answered after a wait for a pair, or for the disk
DRY: Final = "dry"  # no pair, nor one to be expected within the caller's wait
REFUSED: Final = "refused"  # for what the caller asked, or for the state that something is in
ERROR: Final = "error"  # a defect of kpcache's own
OUTCOMES: Final = (HIT, WAITED, DRY, REFUSED, ERROR)

REASONS: Final = frozenset(
    {"draining", "not_issuing", "overloaded", "pool_dry", "quiesced", "rate_limited", NONE, OTHER}
)
_PAIR_OPERATIONS: Final = frozenset({"GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext"})
_SPECS: Final = frozenset(MAKEABLE)
_PROVIDERS: Final = dict.fromkeys(OPERATIONS, KEYRING)

REQUEST_EDGES: Final = edges(25e-6, 10.0)
WRAP_EDGES: Final = edges(5e-6, 5.0)

Labels = tuple[str, str, str, str]  # operation, spec, provider, outcome


class Tally:
    """All clients' requests. ``methods`` are those that are answered."""

    def __init__(self, methods: Iterable[str]) -> None:
        self.operations = frozenset(methods) | {OTHER}
        self.times: dict[Labels, Histogram] = {}
        self.refusals: Counter[tuple[str, str, str]] = Counter()  # by operation, code and reason
        self.wraps = {KEYRING: Histogram(WRAP_EDGES)}  # by provider
        self.broken = 0  # connections that ended for bytes that are not the protocol

    def note(self, labels: Labels, seconds: float) -> None:
        """A request took so long. Only for labels from here: they are the children that there can be."""
        try:
            self.times[labels].observe(seconds)
        except KeyError:
            self.times[labels] = first = Histogram(REQUEST_EDGES)
            first.observe(seconds)

    def refused(self, request: Request, error: KpcacheError, provider: str) -> Labels:
        """Count a refusal. ``provider``: has the key that was asked for, if the request has come so far."""
        operation = request.method if request.method in self.operations else OTHER
        outcome = ERROR if isinstance(error, InternalError) else REFUSED
        if outcome is REFUSED:
            code = error.code if error.code in WIRE_CLASSES else OTHER
            reason = error.reason or NONE
            self.refusals[operation, code, reason if reason in REASONS else OTHER] += 1
            if reason == "pool_dry":
                outcome = DRY
        return operation, _spec_of(request), provider, outcome


def answered(method: str, outcome: str) -> Labels:
    """Of an answer without a pair."""
    return method, NONE, _PROVIDERS.get(method, NONE), outcome


def _spec_of(request: Request) -> str:
    """What was asked for, whatever stands there."""
    if request.method not in _PAIR_OPERATIONS:
        return NONE
    spec = request.data.get("KeyPairSpec") if isinstance(request.data, dict) else None
    return spec if isinstance(spec, str) and spec in _SPECS else OTHER
