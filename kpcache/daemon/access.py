"""Holds each request against the rules of access in force, and tells a client what they let it do.

The rules that are for a connection's peer, and what they allow, are worked out when it first asks, and again
after the rules or the keyring have changed; connections with the same rules share that.

Which refusal, when a key is not there: whoever may not use a key is told the same whether there is one or
not. KMS does so for key ids and ARNs, and tells anybody that an alias is not there; here nobody can go
through names. Who may use every key, or that very name, gets KMS's ``NotFoundException``. For a blob it is
KMS's own sentence, by the key in its header; and nothing of a blob is looked at before that.
"""

from typing import Any, Final

from kpcache.core.access import NO_SPEC, Rights, Rule, Rules, rules_for, table
from kpcache.core.contract import shown
from kpcache.daemon.access_log import AccessLog
from kpcache.daemon.notices import log
from kpcache.daemon.peer import UNKNOWN, Peer
from kpcache.errors import AccessDeniedException, NotFoundException
from kpcache.keyring import Key, Keyring

_CURE: Final = "ask the administrator for an [[access]] rule; kpcache whoami shows what you may do"
_HAS_ENDED: Final = (
    "the process that made this connection had ended, or could not be looked at, when it was accepted, so "
    "whose requests these are is not known: connect again, from the process that asks"
)
_IS_UNKNOWN: Final = (
    "this user or process is of another namespace and not known here: only rules without uids and gids are "
    "for it"
)
_EVERYTHING: Final = (Rule(),)


class Visitor:
    """Whoever is at the other end of one connection. ``is_administrator``: it is one of ``admin.sock``, where
    no rule is asked."""

    __slots__ = ("era", "is_administrator", "peer", "rights")

    def __init__(self, peer: Peer, *, is_administrator: bool = False) -> None:
        self.peer = peer
        self.is_administrator = is_administrator
        # For ``Access`` alone: what it has worked out, and under which rules and keys.
        self.rights = Rights((), lambda _: None)
        self.era: object = None


# For requests without a connection.
NOBODY: Final = Visitor(UNKNOWN)


class Access:
    """The rules in force; without any, everybody may do everything. For one thread, the daemon's loop."""

    def __init__(self, keyring: Keyring) -> None:
        self.rules: Rules = ()
        self._keyring = keyring
        self._log = AccessLog()
        # Rights worked out since the rules or the keyring's content last changed. Each era is an object of
        # its own, so that a visitor's rights can be seen to be of another one.
        self._rights: dict[Rules, Rights] = {}
        self._era = object()
        self._content: object = None

    def replace(self, rules: Rules) -> None:
        """Have these rules in force, for connections that are open and requests that wait, too."""
        self.rules = rules
        self._begin_era()
        lost = {name for rule in rules for name in rule.key_ids or () if self._meaning(name) is None}
        if lost:
            log.warning(
                "[[access]] names what is no key at present: %s; there these rules allow nothing",
                ", ".join(sorted(lost)),
            )

    def resolve(self, visitor: Visitor, operation: str, name: str, spec: str = NO_SPEC) -> Key:
        """The key of this name, which may be used for this. Raises ``AccessDeniedException``, and
        ``NotFoundException`` where that may be known."""
        if not self.rules or visitor.is_administrator:
            return self._keyring.resolve(name)
        try:
            key = self._keyring.resolve(name)
        except NotFoundException:
            if self._rights_of(visitor).allow(operation, spec, name):
                raise
        else:
            if self._rights_of(visitor).allow(operation, spec, key.key_id):
                return key
        what = f"{spec} with key" if spec else "with key"
        raise self._refusal(
            visitor, f"{operation} {what} '{shown(name)}'", "is not allowed to you, or there is no such key"
        )

    def require_blob(self, visitor: Visitor, operation: str, blob: bytes) -> None:
        """Raise ``AccessDeniedException`` if the key in the blob's header must not be used for this."""
        if not self.rules or visitor.is_administrator:
            return
        key = self._keyring.key_of(blob)
        if not self._rights_of(visitor).allow(operation, NO_SPEC, key.key_id if key else ""):
            raise self._refusal(
                visitor,
                f"{operation} of a blob",
                "failed: The ciphertext refers to a customer master key that does not exist, does not exist "
                "in this region, or you are not allowed to access",
            )

    def who_is(self, visitor: Visitor) -> dict[str, Any]:
        """The answer of ``kpcache.WhoAmI``. Names of keys are those in the rules, and "*" is each."""
        peer, is_bound = visitor.peer, bool(self.rules) and not visitor.is_administrator
        note = ""
        if is_bound and peer.has_ended:
            note = _HAS_ENDED
        elif is_bound and peer.asker.uid is None:
            note = _IS_UNKNOWN
        return {
            "Uid": peer.who.uid,
            "Gid": peer.gid,
            "Groups": sorted(peer.gids),
            "Pid": peer.pid,
            "Administrator": visitor.is_administrator,
            "RulesInForce": bool(self.rules),
            "Allowed": table(self._rules_for(visitor) if is_bound else _EVERYTHING),
            "Note": note,
        }

    def _rights_of(self, visitor: Visitor) -> Rights:
        if self._keyring.content is not self._content:
            self._content = self._keyring.content
            self._begin_era()
        if visitor.era is not self._era:
            rules = self._rules_for(visitor)
            if rules not in self._rights:
                self._rights[rules] = Rights(rules, self._meaning)
            visitor.rights, visitor.era = self._rights[rules], self._era
        return visitor.rights

    def _begin_era(self) -> None:
        self._era = object()
        self._rights.clear()

    def _rules_for(self, visitor: Visitor) -> Rules:
        return () if visitor.peer.has_ended else rules_for(self.rules, visitor.peer.asker)

    def _meaning(self, name: str) -> str | None:
        try:
            return self._keyring.resolve(name).key_id
        except NotFoundException:
            return None

    def _refusal(self, visitor: Visitor, what: str, why: str) -> AccessDeniedException:
        self._log.refused(visitor.peer, what)
        if visitor.peer.has_ended:
            return AccessDeniedException(f"{what} is not allowed: {_HAS_ENDED}")
        return AccessDeniedException(f"{what} {why}: {_CURE}")
