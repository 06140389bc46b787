"""The settings of ``[[access]]``: one rule, its parts each with what they may be."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from kpcache.core import access
from kpcache.core.access import OVERFLOW_ID, PAIR_OPERATIONS
from kpcache.core.config_rules import Rule, Unfit
from kpcache.core.config_tables import shown
from kpcache.core.operations import OPERATIONS
from kpcache.core.specs import MAKEABLE
from kpcache.errors import ConfigError

MAX_RULES: Final = 1000
_MAX_ITEMS: Final = 1000
# Keys of the keyring by all their names: key id, ARN, alias, alias ARN.
_KEY_ID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_ALIAS = "alias/(?!aws/)[a-zA-Z0-9/_-]{1,250}"
_ARN_PREFIX = "arn:aws:kms:local:000000000000:"
_KEY_NAME = re.compile(rf"{_KEY_ID}|{_ALIAS}|{_ARN_PREFIX}(key/{_KEY_ID}|{_ALIAS})")


def accounts(kind: Literal["user", "group"]) -> Rule[tuple[int | str, ...]]:
    """Numbers and names. Whether a name is there is for the daemon to find out."""
    unfit = Unfit(
        f"a list of {kind}s, each a number (without quotes) or a name, and none of them {OVERFLOW_ID}, which "
        "is nobody in particular; leave it out where it is for everyone who can open the socket"
    )

    def rule(value: object) -> tuple[int | str, ...]:
        if not isinstance(value, list) or not 1 <= len(value) <= _MAX_ITEMS:
            raise unfit
        if not all(map(_is_account, value)):
            raise unfit
        return tuple(value)

    return rule


def _is_account(item: object) -> bool:
    if isinstance(item, str):
        # passwd(5) allows no colon. Digits alone would be a number in quotes, which names nobody.
        return 0 < len(item) <= 256 and item.isprintable() and ":" not in item and not item.isdecimal()
    return type(item) is int and 0 <= item < 2**32 - 1 and item != OVERFLOW_ID


def names_or_all(known: Collection[str]) -> Rule[tuple[str, ...] | Literal["*"]]:
    def rule(value: object) -> tuple[str, ...] | Literal["*"]:
        if value == "*":
            return "*"
        if not isinstance(value, list) or not value or not all(item in list(known) for item in value):
            raise Unfit(f'"*" for each, or a list of at least one of {", ".join(known)}')
        return tuple(value)

    return rule


def keys_or_all(value: object) -> tuple[str, ...] | Literal["*"]:
    if value == "*":
        return "*"
    is_fit = isinstance(value, list) and 1 <= len(value) <= _MAX_ITEMS
    if not isinstance(value, list) or not is_fit or not all(map(_is_key_name, value)):
        raise Unfit(
            '"*" for every key, or a list of keys of the keyring, each by its key id (kpcache keyring list), '
            f'"alias/NAME", or the ARN of one, which begins with {_ARN_PREFIX}'
        )
    return tuple(value)


def _is_key_name(item: object) -> bool:
    return isinstance(item, str) and _KEY_NAME.fullmatch(item) is not None


@dataclass(frozen=True)
class AccessSettings:
    """One of ``[[access]]``: see ``core/access``. No ``uids`` or no ``gids``: whoever can open the socket."""

    uids: Annotated[tuple[int | str, ...], accounts("user")] = ()
    gids: Annotated[tuple[int | str, ...], accounts("group")] = ()
    operations: Annotated[tuple[str, ...] | Literal["*"], names_or_all(OPERATIONS)] = "*"
    specs: Annotated[tuple[str, ...] | Literal["*"], names_or_all(MAKEABLE)] = "*"
    key_ids: Annotated[tuple[str, ...] | Literal["*"], keys_or_all] = "*"

    @property
    def rule(self) -> access.Rule:
        """To be asked for when all names of users and groups are numbers: one that is not is nobody's."""
        return access.Rule(
            _numbers(self.uids),
            _numbers(self.gids),
            access.ALL_OPERATIONS if self.operations == "*" else frozenset(self.operations),
            access.ALL_SPECS if self.specs == "*" else frozenset(self.specs),
            None if self.key_ids == "*" else frozenset(self.key_ids),
        )


def _numbers(accounts: tuple[int | str, ...]) -> frozenset[int] | None:
    """None where there are none: the rule is for all of this kind."""
    return frozenset(each for each in accounts if isinstance(each, int)) if accounts else None


def check_access(rules: tuple[AccessSettings, ...]) -> None:
    """What no part of a rule shows alone. Raises ``ConfigError``."""
    if len(rules) > MAX_RULES:
        raise ConfigError(f"access: {len(rules)} rules; there may be {MAX_RULES}: put users into groups")
    for number, rule in enumerate(rules):
        if rule.specs != "*" and rule.operations != "*" and PAIR_OPERATIONS.isdisjoint(rule.operations):
            raise ConfigError(
                f"access[{number}].specs = {shown(list(rule.specs))}: must be left out, since none of the "
                "rule's operations gives out pairs"
            )
