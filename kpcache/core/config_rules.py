"""What a single setting may be: rules that turn a TOML value into ours, or say what would be right."""

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from kpcache.core import readiness
from kpcache.core.access import OVERFLOW_ID
from kpcache.core.specs import MAKEABLE

T = TypeVar("T")
Rule = Callable[[object], T]

# sun_path has 108 bytes with its closing zero (unix(7)). admin.sock lies beside the socket.
_MAX_SOCKET_PATH_BYTES = 107
_ADMIN_SOCKET = "admin.sock"
_LEAST_AGE_S = 10
# AliasNameType of the KMS service model: ^alias/[a-zA-Z0-9/_-]+$, at most 256; alias/aws/ is AWS's own.
_ALIAS = re.compile(r"alias/(?!aws/)[a-zA-Z0-9/_-]{1,250}\Z")

# A name in a Host header. RFC 1123 has no underscore, yet names with one are in use.
_HOST = re.compile("[A-Za-z0-9._-]{1,253}")
# What precedes the path in [metrics].listen.
UNIX_PREFIX = "unix:"

# What [keyring].unlock can be; the last one is followed by the name of a key.
UNLOCK_MODES = ("file", "credential", "passphrase-file")
UNLOCK_BY_AWS = "aws-kms:"


class Unfit(Exception):
    """The value does not fit; the text completes "must be ..."; a ``ConfigError`` results."""


def integer(low: int, high: int) -> Rule[int]:
    """A whole number, both ends included. True and false are no numbers here."""

    def rule(value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise Unfit(f"a whole number from {low} to {high}")
        return value

    return rule


def auto_or(low: int, high: int) -> Rule[int | Literal["auto"]]:
    """As ``integer``, or "auto"."""
    number = integer(low, high)

    def rule(value: object) -> int | Literal["auto"]:
        if value == "auto":
            return "auto"
        try:
            return number(value)
        except Unfit as unfit:
            raise Unfit(f'"auto" or {unfit}') from None

    return rule


def auto_or_integer(low: int, high: int) -> Rule[int]:
    """As ``auto_or``; "auto" becomes 0, for the loader to resolve."""
    auto_or_number = auto_or(low, high)

    def rule(value: object) -> int:
        found = auto_or_number(value)
        return 0 if found == "auto" else found

    return rule


def number(low: float, high: float, what: str = "a number") -> Rule[float]:
    """A finite number, both ends included. True and false are no numbers here."""

    def rule(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise Unfit(f"{what} from {low:g} to {high:g}")
        return float(value)

    return rule


def age(value: object) -> float:
    """How old a pair may become: one that is retired sooner than it is made would only heat the room."""
    if value == 0 and type(value) in (int, float):
        return 0.0
    try:
        return seconds(_LEAST_AGE_S, 315_360_000)(value)
    except Unfit as unfit:
        raise Unfit(f"{unfit}, or 0 for no limit") from None


def ready_level(value: object) -> str:
    if not isinstance(value, str) or not readiness.is_level(value):
        raise Unfit('"low_water", "full", or a part of the target, as in "50%"')
    return value


def uid_or_all(value: object) -> int | Literal["*"]:
    if value == "*":
        return "*"
    # 65534 stands for everybody whom this user namespace does not know: user_namespaces(7).
    if type(value) is not int or not 0 <= value < 2**32 - 1 or value == OVERFLOW_ID:
        raise Unfit('a user\'s number (see id -u NAME; not 65534, which is nobody), or "*" for each user')
    return value


def spec_or_all(value: object) -> str:
    if not isinstance(value, str) or (value != "*" and value not in MAKEABLE):
        raise Unfit(f'"*" for each spec, or one of {", ".join(MAKEABLE)}')
    return value


def seconds(low: float, high: float) -> Rule[float]:
    """As ``number``."""
    return number(low, high, "a number of seconds")


def one_of(*choices: str) -> Rule[str]:
    def rule(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise Unfit("one of " + ", ".join(f'"{choice}"' for choice in choices))
        return value

    return rule


def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise Unfit("true or false")
    return value


def text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > 256:
        raise Unfit("a string of at most 256 printable characters")
    return value


def strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Unfit("a list of strings")
    return tuple(value)


def folder(value: object) -> Path:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value or ".." in value.split("/"):
        raise Unfit("an absolute path without ..")
    return Path(value)


def file_or_none(value: object) -> str:
    if value == "":
        return ""
    try:
        return str(folder(value))
    except Unfit:
        raise Unfit('an absolute path without .., or "" for none') from None


def unlock(value: object) -> str:
    by_aws = isinstance(value, str) and re.fullmatch(UNLOCK_BY_AWS + "[!-~]{1,2048}", value)
    if not isinstance(value, str) or not (value in UNLOCK_MODES or by_aws):
        modes = ", ".join(f'"{mode}"' for mode in UNLOCK_MODES)
        raise Unfit(f'one of {modes}, "{UNLOCK_BY_AWS}KEY"')
    return value


def socket(value: object) -> Path:
    path = folder(value)
    longest = max(len(str(path).encode()), len(str(path.parent / _ADMIN_SOCKET).encode()))
    if longest > _MAX_SOCKET_PATH_BYTES:
        raise Unfit(f"a path of at most {_MAX_SOCKET_PATH_BYTES} bytes: the kernel takes no longer one")
    if path.name in ("", _ADMIN_SOCKET):
        raise Unfit(f"the path of a file that is not {_ADMIN_SOCKET}, which is put beside it")
    return path


def mode(value: object) -> int:
    """File permissions in octal digits. A string, since a bare 660 would be decimal."""
    if not isinstance(value, str) or not re.fullmatch("0?[0-7]{3}", value):
        raise Unfit('octal permissions in quotes, as in "0660"')
    return int(value, 8)


def admin_mode(value: object) -> int:
    """As ``mode``, for a socket on which keys can be exported and destroyed."""
    unfit = Unfit('octal permissions in quotes that let no others write, as in "0600" or "0660"')
    try:
        found = mode(value)
    except Unfit:
        raise unfit from None
    if found & 0o002:  # to connect takes the right to write: unix(7)
        raise unfit
    return found


def alias(value: object) -> str:
    if not isinstance(value, str) or not _ALIAS.match(value):
        raise Unfit('"alias/" and a name of letters, digits, "/", "_", "-" (not "alias/aws/...")')
    return value


def listen(value: object) -> str:
    """ADDRESS:PORT with a numeric address (a name could resolve to several), a Unix socket's path behind
    "unix:", or empty for none."""
    unfit = Unfit(
        'an address and a port, as in "127.0.0.1:9743" or "[::1]:9743", a path, as in '
        '"unix:/run/kpcache/metrics.sock", or "" for none'
    )
    if not isinstance(value, str):
        raise unfit
    if value.startswith(UNIX_PREFIX):
        return f"{UNIX_PREFIX}{socket(value.removeprefix(UNIX_PREFIX))}"
    if value and not _is_address_and_port(value):
        raise unfit
    return value


def _is_address_and_port(value: str) -> bool:
    host, _, port = value.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return False
    return (
        (address.version == 6) == bracketed
        and bool(re.fullmatch("[0-9]{1,5}", port))
        and 0 < int(port) < 65536
    )


def hosts(value: object) -> tuple[str, ...]:
    """Names or addresses as they stand in a Host header, without a port and brackets, each in its usual
    form."""
    return tuple(_host(name) for name in strings(value))


def _host(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        if not _HOST.fullmatch(value):
            raise Unfit(
                'a list of host names or addresses without a port, as in ["metrics.example.com"]'
            ) from None
        return value.lower()
