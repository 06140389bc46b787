"""What a value of a request may be: checks of KMS's shapes, each names the constraint that is broken.

The wording follows recorded answers of AWS KMS ("Member must ..."). Which member has which check:
``core/operations``.
"""

from collections.abc import Callable
from itertools import chain
from typing import Final

MAX_CONTEXT_ENTRIES: Final = 64
MAX_CONTEXT_BYTES: Final = 8192  # keys and values together, as UTF-8

Check = Callable[[object], str]
"""Returns "" for a value that is allowed, else the constraint that it breaks, as KMS words it."""


def sized(kind: type[str] | type[bytes], name: str, minimum: int, maximum: int) -> Check:
    """A string (length in characters) or a blob (in bytes)."""
    wrong_type = f"Member must be a {name}"
    too_short = f"Member must have length greater than or equal to {minimum}"
    too_long = f"Member must have length less than or equal to {maximum}"

    def check(value: object) -> str:
        if type(value) is not kind:
            return wrong_type
        if minimum <= len(value) <= maximum:
            return ""
        return too_short if len(value) < minimum else too_long

    return check


def enum(*values: str) -> Check:
    allowed = frozenset(values)
    refusal = f"Member must satisfy enum value set: [{', '.join(values)}]"

    def check(value: object) -> str:
        return "" if type(value) is str and value in allowed else refusal

    return check


def list_of(member: Check, maximum: int) -> Check:
    def check(value: object) -> str:
        if type(value) is not list and type(value) is not tuple:
            return "Member must be a list"
        if len(value) > maximum:
            return f"Member must have length less than or equal to {maximum}"
        return next(filter(None, map(member, value)), "")

    return check


def boolean(value: object) -> str:
    return "" if type(value) is bool else "Member must be a boolean"


def structure(value: object) -> str:
    return "" if type(value) is dict else "Member must be a structure"


def context(value: object) -> str:
    """EncryptionContextType: strings to strings. KMS reads other JSON types as strings; we refuse them."""
    if type(value) is not dict:
        return "Member must be a map of strings to strings"
    if len(value) > MAX_CONTEXT_ENTRIES:
        return f"Map must have at most {MAX_CONTEXT_ENTRIES} entries"
    try:
        size = len("".join(chain(value, value.values())).encode())
    except TypeError:
        return "Map keys and values must be strings"
    except UnicodeEncodeError:
        return "Map keys and values must be valid Unicode, without lone surrogates"
    if size > MAX_CONTEXT_BYTES:
        return f"Map keys and values must have at most {MAX_CONTEXT_BYTES} bytes of UTF-8 together"
    return ""
