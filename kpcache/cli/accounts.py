"""Users and groups that settings name, by the numbers that they have on this machine."""

import grp
import pwd
from collections.abc import Callable
from dataclasses import replace

from kpcache.core.access import OVERFLOW_ID
from kpcache.core.config_tables import shown
from kpcache.core.settings import Config
from kpcache.errors import ConfigError


def with_numbers(config: Config, file: str | None) -> Config:
    """``config``, which ``file`` gave, with this moment's numbers in the place of names in ``[[access]]``.

    Only for who serves by it, or checks it: on another machine the names may not be there. May wait for
    whoever knows them (LDAP, say). Raises ``ConfigError`` for a name that is not there.
    """
    try:
        rules = tuple(
            replace(
                each,
                uids=_numbers(
                    each.uids, "user", f"access[{place}].uids", lambda name: pwd.getpwnam(name).pw_uid
                ),
                gids=_numbers(
                    each.gids, "group", f"access[{place}].gids", lambda name: grp.getgrnam(name).gr_gid
                ),
            )
            for place, each in enumerate(config.access)
        )
    except ConfigError as error:
        raise ConfigError(f"{file}: {error.message}" if file else error.message) from None
    return replace(config, access=rules)


def _numbers(
    accounts: tuple[int | str, ...], kind: str, path: str, number_of: Callable[[str], int]
) -> tuple[int, ...]:
    numbers: list[int] = []
    for account in accounts:
        try:
            number = account if isinstance(account, int) else number_of(account)
        except (KeyError, ValueError):  # ValueError: a name that no system can have
            raise ConfigError(
                f"{path}: there is no {kind} {shown(account)} on this machine: correct the name, create the "
                f"{kind}, or give a number"
            ) from None
        if number == OVERFLOW_ID:
            raise ConfigError(
                f"{path}: {shown(account)} has the number {OVERFLOW_ID}, which stands for whoever is not "
                f"known here: make a {kind} of its own for what is to be allowed"
            )
        numbers.append(number)
    return tuple(numbers)
