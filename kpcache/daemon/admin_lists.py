"""The methods of administration that only look, answered at once from the content in force, in pages.

A page ends at a name, and the next one begins behind it, in the order of names: what is added or removed
between two pages makes none of the others come twice or not at all.
"""

import base64
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any, Final

from kpcache.errors import InvalidMarkerException, UnsupportedOperationException
from kpcache.keyring import changes, views
from kpcache.keyring.document import Document

Input = Mapping[str, Any]
Entry = Mapping[str, Any]

# KMS, each list's page of the API reference: what a page holds if Limit is not said.
_DEFAULT_LIMITS: Final = {"Keys": 100, "Aliases": 50, "Rotations": 100, "Tags": 50}


def _list_keys(content: Document, data: Input) -> dict[str, Any]:
    if "OTHER_ACCOUNTS_VIA_RAM" in data.get("ResourceOwners", ()):
        raise UnsupportedOperationException("ResourceOwners can only be SELF: there are no other accounts")
    return _page("Keys", "", {entry["KeyId"]: entry for entry in views.list_keys(content)}, data)


def _list_aliases(content: Document, data: Input) -> dict[str, Any]:
    key_id = changes.find(content, data["KeyId"]).key_id if "KeyId" in data else None
    entries = {entry["AliasName"]: entry for entry in views.list_aliases(content, key_id)}
    return _page("Aliases", key_id or "", entries, data)


def _list_rotations(content: Document, data: Input) -> dict[str, Any]:
    record = changes.find(content, data["KeyId"])
    all_material = data.get("IncludeKeyMaterial") == "ALL_KEY_MATERIAL"
    # Oldest first: a number with leading zeros for a name keeps that order.
    rotations = views.list_rotations(record, all_material=all_material)
    entries = {f"{number:09d}": entry for number, entry in enumerate(rotations)}
    return _page("Rotations", f"{record.key_id} {all_material}", entries, data)


def _list_tags(content: Document, data: Input) -> dict[str, Any]:
    record = changes.find(content, data["KeyId"])
    return _page("Tags", record.key_id, {tag["TagKey"]: tag for tag in views.list_tags(record)}, data)


LISTS: Final[Mapping[str, Callable[[Document, Input], dict[str, Any]]]] = {
    "kpcache.ListKeys": _list_keys,
    "kpcache.ListAliases": _list_aliases,
    "kpcache.ListKeyRotations": _list_rotations,
    "kpcache.ListResourceTags": _list_tags,
}
"""By the name on the wire. Each takes validated input, and raises ``KpcacheError`` for the administrator."""


def _page(member: str, scope: str, entries: Mapping[str, Entry], data: Input) -> dict[str, Any]:
    """The answer: at most Limit entries behind the Marker, in the order of their names.

    ``member`` and ``scope`` tell this list from every other, so that none takes another's marker.
    """
    ordered = sorted(entries)
    start = bisect_right(ordered, _name_in(data["Marker"], member, scope)) if "Marker" in data else 0
    page = ordered[start : start + data.get("Limit", _DEFAULT_LIMITS[member])]
    answer: dict[str, Any] = {member: [entries[name] for name in page], "Truncated": False}
    if start + len(page) < len(ordered):
        answer |= {"Truncated": True, "NextMarker": _marker(member, scope, page[-1])}
    return answer


def _marker(member: str, scope: str, name: str) -> str:
    return base64.urlsafe_b64encode(f"{member}\n{scope}\n{name}".encode()).decode("ascii")


def _name_in(marker: str, member: str, scope: str) -> str:
    """The name at which an earlier page of this list ended. Raises ``InvalidMarkerException``."""
    try:
        parts = base64.b64decode(marker, altchars=b"-_", validate=True).decode().split("\n", 2)
    except ValueError:  # no base64, no ASCII or no UTF-8
        parts = []
    if parts[:2] != [member, scope] or len(parts) != 3:
        raise InvalidMarkerException("This is not a NextMarker of the same list; begin the list again")
    return parts[2]
