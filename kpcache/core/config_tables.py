"""From a table of a TOML file to a record: known keys, each by its rule, and errors that name the place."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any, TypeVar, get_type_hints

from kpcache.core.config_rules import Rule, Unfit
from kpcache.errors import ConfigError

T = TypeVar("T")

_LONGEST_SHOWN = 80


def section(
    cls: type[T], values: Mapping[str, object], path: str, base: Mapping[str, object] | None = None
) -> T:
    """The dataclass ``cls`` from ``values``; ``base`` goes before the dataclass's own defaults.

    The rule of a setting stands in its annotation: ``Annotated[type, rule]``.
    """
    hints = get_type_hints(cls, include_extras=True)
    refuse_unknown(values, hints, f"{path}.")
    given: dict[str, Any] = {}
    for key, value in {**(base or {}), **values}.items():
        given[key] = _fitted(hints[key].__metadata__[0], value, f"{path}.{key}")
    for key in hints:
        if key not in given and not hasattr(cls, key):  # a dataclass keeps its defaults on the class
            raise ConfigError(f"{path}.{key}: must be given")
    return cls(**given)


def table(mapping: Mapping[str, object], name: str, above: str = "") -> Mapping[str, object]:
    """The sub-table ``name``, empty when it is not there."""
    found = mapping.get(name, {})
    if not isinstance(found, Mapping):
        raise ConfigError(f"{above}{name} = {shown(found)}: must be a table, written [{above}{name}]")
    return found


def tables(mapping: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    """The array of tables ``name``, empty when it is not there."""
    found = mapping.get(name, [])
    if not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
        raise ConfigError(f"{name} = {shown(found)}: must be tables, each written [[{name}]]")
    return found


def refuse_unknown(values: Mapping[str, object], known: Collection[str], path: str) -> None:
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "known are " + ", ".join(known)
            raise ConfigError(f"{path}{_cut(ascii(key)[1:-1])}: there is no such key; {hint}")


def shown(value: object) -> str:
    """The value as TOML would have it or nearly so, escaped and cut, for a message."""
    return str(value).lower() if isinstance(value, bool) else _cut(ascii(value))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."


def _fitted(rule: Rule[T], value: object, path: str) -> T:
    try:
        return rule(value)
    except Unfit as unfit:
        raise ConfigError(f"{path} = {shown(value)}: must be {unfit}") from None
