"""Who may ask for what: the rules of ``[[access]]``, which only ever allow.

A request is allowed if any rule allows it, so their order means nothing, and one more takes no right away.
Within a rule every key narrows: it allows what fits all of them. Users and groups in one rule are thus those
users who are in those groups; for either, there are two rules.

The specs of a rule say which pairs it gives out; operations that give out none are not narrowed by them. A
key's name in a rule means the key that has this name now: an alias that is moved takes the right with it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from kpcache.core.operations import OPERATIONS
from kpcache.core.specs import MAKEABLE

# Stands for every user, and every group, that this user namespace does not know: user_namespaces(7).
OVERFLOW_ID: Final = 65534

ALL_OPERATIONS: Final = frozenset(OPERATIONS)
ALL_SPECS: Final = frozenset(MAKEABLE)
PAIR_OPERATIONS: Final = frozenset(
    name for name, operation in OPERATIONS.items() if "KeyPairSpec" in operation.checks
)
# The spec of an operation that gives out no pair.
NO_SPEC: Final = ""
_NO_KEYS: Final[frozenset[str]] = frozenset()


class Asker(NamedTuple):
    """Who asks. ``uid`` None: it is not known who. ``gids``: the primary group and the supplementary ones."""

    uid: int | None
    gids: frozenset[int]


def asker_of(uid: int, pid: int, gids: frozenset[int]) -> Asker:
    """From what the kernel tells of a peer. Nobody's uid and pid 0 stand for what another namespace has: any
    number of strangers share them, so they name no one."""
    return Asker(None, frozenset()) if uid == OVERFLOW_ID or pid == 0 else Asker(uid, gids)


@dataclass(frozen=True, slots=True)
class Rule:
    """One of ``[[access]]``. ``uids`` and ``gids`` None: whoever can open the socket; ``key_ids`` None: every
    key."""

    uids: frozenset[int] | None = None
    gids: frozenset[int] | None = None
    operations: frozenset[str] = ALL_OPERATIONS
    specs: frozenset[str] = ALL_SPECS
    key_ids: frozenset[str] | None = None

    def is_for(self, asker: Asker) -> bool:
        if asker.uid is None:
            return self.uids is None and self.gids is None
        if self.uids is not None and asker.uid not in self.uids:
            return False
        return self.gids is None or not self.gids.isdisjoint(asker.gids)


Rules = tuple[Rule, ...]


def rules_for(rules: Rules, asker: Asker) -> Rules:
    """Those that are for this one."""
    return tuple(rule for rule in rules if rule.is_for(asker))


class Rights:
    """What some rules allow together, as one look-up: operation and spec, then the key."""

    __slots__ = ("_keys",)

    def __init__(self, rules: Rules, means: Callable[[str], str | None]) -> None:
        """``means``: the id of the key that a name means now; None for a name that leads nowhere."""
        # None is every key. What leads nowhere stays as it is written: who may use a name may be told so.
        self._keys: dict[tuple[str, str], frozenset[str] | None] = {
            place: None if named is None else frozenset(means(name) or name for name in named)
            for place, named in _named_keys(rules).items()
        }

    def allow(self, operation: str, spec: str, key: str) -> bool:
        """Whether this may be done. ``spec`` is ``NO_SPEC`` where no pair is asked for; ``key`` is the id of
        a key, or a name that leads nowhere."""
        keys = self._keys.get((operation, spec), _NO_KEYS)
        return keys is None or key in keys


def table(rules: Rules) -> list[dict[str, Any]]:
    """What these rules allow, as rows for ``kpcache.WhoAmI``: operation, specs where it has them, and the
    keys as the rules name them; "*" is each."""
    rows = []
    named_keys = _named_keys(rules)
    for operation in OPERATIONS:
        by_keys: dict[frozenset[str] | None, list[str]] = {}
        for spec in _specs_of(operation, MAKEABLE):
            if (operation, spec) in named_keys:
                by_keys.setdefault(named_keys[operation, spec], []).append(spec)
        for named, specs in by_keys.items():
            row: dict[str, Any] = {"Operation": operation}
            if operation in PAIR_OPERATIONS:
                row["Specs"] = "*" if len(specs) == len(MAKEABLE) else specs
            rows.append({**row, "KeyIds": "*" if named is None else sorted(named)})
    return rows


def _named_keys(rules: Rules) -> Mapping[tuple[str, str], frozenset[str] | None]:
    """For each operation and spec that is allowed with any key: their names, or None for every key."""
    found: dict[tuple[str, str], frozenset[str] | None] = {}
    for rule in rules:
        for operation in rule.operations:
            for spec in _specs_of(operation, rule.specs):
                before, more = found.get((operation, spec), _NO_KEYS), rule.key_ids
                found[operation, spec] = None if before is None or more is None else before | more
    return found


def _specs_of(operation: str, specs: Iterable[str]) -> Iterable[str]:
    return specs if operation in PAIR_OPERATIONS else (NO_SPEC,)
