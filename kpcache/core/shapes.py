"""What a value of a request may be: checks of KMS's shapes, each tells the constraint that is broken.

The wording follows recorded answers of AWS KMS ("Member must ..."). Which member has which check:
``core/operations``.
"""

import re
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Final, NamedTuple

MAX_CONTEXT_ENTRIES: Final = 64
MAX_CONTEXT_BYTES: Final = 8192  # keys and values together, as UTF-8


class Broken(NamedTuple):
    """A constraint in KMS's words, and where below the checked value it is broken: ``.1.member.tagKey``."""

    constraint: str
    path: str = ""


Check = Callable[[object], Broken | None]
"""Returns None for a value that is allowed."""


def kms_name(member: str) -> str:
    """KMS names members in these messages with a small first letter."""
    return member[:1].lower() + member[1:]


def sized(kind: type[str] | type[bytes], name: str, minimum: int, maximum: int) -> Check:
    """A string (length in characters) or a blob (in bytes)."""
    wrong_type = Broken(f"Member must be a {name}")
    too_short = Broken(f"Member must have length greater than or equal to {minimum}")
    too_long = Broken(f"Member must have length less than or equal to {maximum}")

    def check(value: object) -> Broken | None:
        if type(value) is not kind:
            return wrong_type
        if minimum <= len(value) <= maximum:
            return None
        return too_short if len(value) < minimum else too_long

    return check


def matching(pattern: str, minimum: int, maximum: int) -> Check:
    """A string of so many characters that a regular expression matches whole."""
    length = sized(str, "string", minimum, maximum)
    compiled = re.compile(pattern, re.ASCII)
    refusal = Broken(f"Member must satisfy regular expression pattern: {pattern}")

    def check(value: object) -> Broken | None:
        return length(value) or (None if compiled.fullmatch(str(value)) else refusal)

    return check


def integer(minimum: int, maximum: int) -> Check:
    def check(value: object) -> Broken | None:
        if type(value) is not int:
            return Broken("Member must be an integer")
        if value < minimum:
            return Broken(f"Member must have value greater than or equal to {minimum}")
        return Broken(f"Member must have value less than or equal to {maximum}") if value > maximum else None

    return check


def enum(*values: str) -> Check:
    allowed = frozenset(values)
    refusal = Broken(f"Member must satisfy enum value set: [{', '.join(values)}]")

    def check(value: object) -> Broken | None:
        return None if type(value) is str and value in allowed else refusal

    return check


def list_of(member: Check, maximum: int | None = None, *, minimum: int = 0) -> Check:
    def check(value: object) -> Broken | None:
        if type(value) is not list and type(value) is not tuple:
            return Broken("Member must be a list")
        if len(value) < minimum:
            return Broken(f"Member must have length greater than or equal to {minimum}")
        if maximum is not None and len(value) > maximum:
            return Broken(f"Member must have length less than or equal to {maximum}")
        for number, item in enumerate(value, 1):
            if broken := member(item):
                return Broken(broken.constraint, f".{number}.member{broken.path}")
        return None

    return check


def structure(members: Mapping[str, Check], required: tuple[str, ...] = ()) -> Check:
    """A map of known members; as in an operation's input, one that is not required may be absent or nil."""

    def check(value: object) -> Broken | None:
        if type(value) is not dict:
            return Broken("Member must be a structure")
        for name in required:
            if value.get(name) is None:
                return Broken("Member must not be null", f".{kms_name(name)}")
        for name, item in value.items():
            if name not in members:
                return Broken(f"Member must have no members but {', '.join(members)}")
            if item is not None and (broken := members[name](item)):
                return Broken(broken.constraint, f".{kms_name(name)}{broken.path}")
        return None

    return check


def boolean(value: object) -> Broken | None:
    return None if type(value) is bool else Broken("Member must be a boolean")


def context(value: object) -> Broken | None:
    """EncryptionContextType: strings to strings. KMS reads other JSON types as strings; we refuse them.

    The limits are our own, as KMS states none; no refusal shows any of the context, here or elsewhere.
    """
    if type(value) is not dict:
        return Broken("Member must be a map of strings to strings")
    if len(value) > MAX_CONTEXT_ENTRIES:
        return Broken(f"Map must have at most {MAX_CONTEXT_ENTRIES} entries, a limit of kpcache")
    try:
        size = len("".join(chain(value, value.values())).encode())
    except TypeError:
        return Broken("Map keys and values must be strings")
    except UnicodeEncodeError:
        return Broken("Map keys and values must be valid Unicode, without lone surrogates")
    if size > MAX_CONTEXT_BYTES:
        return Broken(
            f"Map keys and values must have at most {MAX_CONTEXT_BYTES} bytes of UTF-8 together, "
            "a limit of kpcache"
        )
    return None
