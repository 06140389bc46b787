"""Answers requests: from a method's name and input to a result, an error, or a wait for a pair.

All checks come before a pair is taken, in the order that ``core/contract`` gives, so a refused request
never costs one. The sequence for a pair is:
take it (it is now in no place another request could reach), build the answer, hand the bytes to the
kernel, count it as issued. Whatever fails after the first step burns the pair.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

from kpcache import __version__
from kpcache.core import contract
from kpcache.core.admin_operations import ADMIN_OPERATIONS
from kpcache.core.fair_queue import Identity
from kpcache.core.limits import PROTOCOL_VERSION, Limits
from kpcache.core.pair import Pair
from kpcache.core.specs import SPECS
from kpcache.core.wire import Request
from kpcache.daemon.access import NOBODY, Access, Visitor
from kpcache.daemon.key_methods import KeyMethods
from kpcache.daemon.pools import Waiter
from kpcache.daemon.stock import Stock
from kpcache.daemon.tally import KEYRING, Tally
from kpcache.errors import (
    AccessDeniedException,
    KMSInvalidStateException,
    KpcacheError,
    ThrottlingException,
    UnsupportedOperationException,
    ValidationException,
)
from kpcache.keyring import Key, Keyring, require_usable

_WITH_PLAINTEXT: Final = "GenerateDataKeyPair"
_WITHOUT_PLAINTEXT: Final = "GenerateDataKeyPairWithoutPlaintext"
PING: Final = "kpcache.Ping"
_STATUS: Final = "kpcache.Status"
_WHO_AM_I: Final = "kpcache.WhoAmI"
# Not KMS's. Answered to whoever can connect, and while the daemon drains too: this is how one sees that.
_OWN_METHODS: Final = frozenset({PING, _STATUS, _WHO_AM_I})


# What taking a snapshot may take.
_SNAPSHOT_S: Final = 5.0


@dataclass(slots=True)
class PairOrder:
    """A checked request for a pair: all that is missing is the pair."""

    spec: str
    key: Key
    context: dict[str, str]
    with_plaintext: bool
    wait_s: float
    visitor: Visitor

    @property
    def operation(self) -> str:
        return _WITH_PLAINTEXT if self.with_plaintext else _WITHOUT_PLAINTEXT


@dataclass(slots=True)
class Gate:
    """What keeps pairs from being given out: the alarm; a snapshot to be taken; a ledger that cannot be
    written, where that is configured; the drain before the stop."""

    alarm: bool = False
    quiesced: bool = False
    ledger_down: bool = False
    draining: bool = False

    @property
    def issuing(self) -> bool:
        return not (self.alarm or self.quiesced or self.ledger_down)

    def refusal(self) -> KpcacheError:
        """Why not, to whoever asks for a pair."""
        if self.alarm:
            return not_issuing()
        return quiesced() if self.quiesced else ledger_down()


class Dispatcher:
    """All methods. ``status`` makes the answer of ``kpcache.Status``; ``access`` has no rules at first."""

    def __init__(
        self, stock: Stock, keyring: Keyring, limits: Limits, gate: Gate, status: Callable[[], dict[str, Any]]
    ) -> None:
        self._stock = stock
        self._keyring = keyring
        self._limits = limits
        self._gate = gate
        self.access = Access(keyring)
        self.notifications = 0  # read from all clients: counted, never acted on
        self._methods: dict[str, Callable[[Request, Visitor], dict[str, Any] | PairOrder]] = {
            _WITH_PLAINTEXT: self._generate,
            _WITHOUT_PLAINTEXT: self._generate,
            **KeyMethods(keyring, stock.fence, self.access).by_name,
            PING: self._ping,
            _STATUS: lambda request, _: _without_input(request) or status(),
            _WHO_AM_I: lambda request, visitor: _without_input(request) or self.access.who_is(visitor),
        }
        self.tally = Tally([*self._methods, *ADMIN_OPERATIONS])
        self._wraps = self.tally.wraps[KEYRING]

    def begin(self, request: Request, visitor: Visitor = NOBODY) -> dict[str, Any] | PairOrder:
        """The result, or for a pair the checked order, to be passed to ``take``. Raises ``KpcacheError``."""
        method = self._methods.get(request.method)
        if method is None:
            if request.method in ADMIN_OPERATIONS:
                raise AccessDeniedException(
                    f"{request.method} is for administrators: it is answered on admin.sock only, which lies "
                    "beside this socket; kpcache whoami tells whether you can open it"
                )
            raise UnsupportedOperationException(
                f"There is no method '{contract.shown(request.method)}'; "
                f"the methods are {', '.join(self._methods)}"
            )
        if self._gate.draining and request.method not in _OWN_METHODS:
            raise draining()
        return method(request, visitor)

    def take(self, order: PairOrder, who: Identity) -> Pair | None:
        """A ready pair for the order, which must go to ``build``; None: ``join_queue``.

        Raises ``ThrottlingException`` for a user who takes pairs too fast.
        """
        return self._stock.take_nowait(order.spec, who)

    def join_queue(self, order: PairOrder, who: Identity) -> Waiter:
        """This caller's place in the queue for a pair. Raises ``ThrottlingException`` at once if hopeless."""

        def recheck() -> None:
            require_usable(self.access.resolve(order.visitor, order.operation, order.key.key_id, order.spec))

        return self._stock.join_queue(order.spec, order.wait_s, who, recheck)

    async def wait(self, waiter: Waiter) -> Pair:
        """The pair at the queue's end; it must go to ``build``. Raises ``KpcacheError``."""
        return await self._stock.wait(waiter)

    def build(self, order: PairOrder, pair: Pair) -> dict[str, Any]:
        """KMS's answer. Raises ``KpcacheError``; the pair is then burnt."""
        if not self._gate.issuing:  # the alarm may have been raised while this request waited
            self._stock.burn(order.spec, "quiesced" if self._gate.quiesced else "not_issuing")
            raise self._gate.refusal()
        begun = perf_counter()
        try:
            wrapped = self._keyring.encrypt(order.key, pair.private, order.context)
        except BaseException:
            self._stock.burn(order.spec, "request_failed")
            raise
        self._wraps.observe(perf_counter() - begun)
        answer: dict[str, Any] = {
            "PrivateKeyCiphertextBlob": wrapped.blob,
            "PublicKey": pair.public,
            "KeyId": order.key.arn,
            "KeyPairSpec": order.spec,
            "KeyMaterialId": wrapped.material_id,  # the key may have been rotated since it was resolved
        }
        if order.with_plaintext:
            answer["PrivateKeyPlaintext"] = pair.private
        return answer

    # --- methods

    def _generate(self, request: Request, visitor: Visitor) -> PairOrder:
        data = contract.validate(request.method, request.data)
        wait_s = self._wait_s(request.options)
        contract.refuse_unoffered(data)
        spec = SPECS[data["KeyPairSpec"]]
        if spec.unsupported:
            raise UnsupportedOperationException(f"{spec.name} is not offered: {spec.unsupported}")
        name, access = data["KeyId"], self.access
        # Without rules, the usual case, a hit pays for one look and no call.
        key = (
            access.resolve(visitor, request.method, name, spec.name)
            if access.rules
            else self._keyring.resolve(name)
        )
        require_usable(key)
        if not self._gate.issuing:
            raise self._gate.refusal()
        contract.refuse_dry_run(data)
        return PairOrder(
            spec=spec.name,
            key=key,
            context=data.get("EncryptionContext", {}),
            with_plaintext=request.method == _WITH_PLAINTEXT,
            wait_s=wait_s,
            visitor=visitor,
        )

    def _ping(self, request: Request, _: Visitor) -> dict[str, Any]:
        return _without_input(request) or {
            "ProtocolVersion": PROTOCOL_VERSION,
            "Version": __version__,
            "MaxMessageBytes": self._limits.max_message_bytes,
            "MaxInFlight": self._limits.max_in_flight_per_connection,
            "MaxWaitSeconds": self._limits.wait_timeout_s,
        }

    def _wait_s(self, options: object) -> float:
        """How long this caller waits when the pool is dry: its own ``wait_s``, cut to the configured most."""
        limits = self._limits
        if options is None or options == {}:
            return limits.wait_timeout_s if limits.wait_when_dry else 0.0
        if type(options) is not dict or set(options) != {"wait_s"}:
            raise ValidationException("options must be a map; the one option is wait_s, in seconds")
        wait_s = options["wait_s"]
        if type(wait_s) not in (int, float) or not (math.isfinite(wait_s) and wait_s >= 0):
            raise ValidationException("wait_s must be a number of seconds, 0 or more")
        return min(float(wait_s), limits.wait_timeout_s)


def draining() -> ThrottlingException:
    """The refusal of whatever comes while the daemon stops."""
    return ThrottlingException("the daemon is stopping; connect again", reason="draining", retry_after_s=1.0)


def quiesced() -> ThrottlingException:
    """The refusal of every request for a pair while a snapshot of the machine is taken: it passes."""
    return ThrottlingException(
        "no pair is given out while a snapshot of this machine is taken: kpcache quiesce began that, and "
        "kpcache resume ends it",
        reason="quiesced",
        retry_after_s=_SNAPSHOT_S,
    )


def not_issuing() -> KMSInvalidStateException:
    """The refusal of every request for a pair after the alarm."""
    return KMSInvalidStateException(
        "a duplicate was found among fresh pairs, so none is given out until an administrator has looked: "
        "the random source of this machine may be broken; see the daemon's log",
        reason="not_issuing",
    )


def ledger_down() -> KMSInvalidStateException:
    """The refusal of every request for a pair while the ledger cannot be written, if so configured."""
    return KMSInvalidStateException(
        "the ledger of what was made cannot be written, and until it can no pair is given out "
        '(ledger.when_unavailable = "stop"); see the daemon\'s log',
        reason="not_issuing",
    )


def _without_input(request: Request) -> dict[str, Any]:
    """Refuse input to a method that takes none; returns the empty map."""
    if request.data not in (None, {}) or request.options not in (None, {}):
        raise ValidationException(f"{request.method} takes no input")
    return {}
