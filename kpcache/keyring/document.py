"""What the keyring file says: keys, their materials, aliases; between records and bytes, without files.

The file is one JSON object: ``format`` "kpcache keyring", ``version`` 4, ``content``, and ``checksum``,
the SHA-256 in hex of the content as JSON with sorted keys, no spaces, ASCII only. The checksum finds
damage; it does not keep out someone who can write the file. Content:

- ``keys``: a list of ``key_id`` (UUID), ``state`` (KMS's KeyState), ``created_s``, ``deletion_s`` (null
  unless PendingDeletion), ``description``, ``tags`` (an object) and ``materials``; times are Unix seconds.
- ``materials``: a list of ``material_id`` (64 hex digits), ``created_s``, ``secret`` (32 bytes, base64).
  Oldest first, never empty; the last one wraps, all of them open.
- ``aliases``: an object from ``alias/NAME`` to the id of a key.
- ``revision``: 1 for a new keyring, one more with every change of what is above. ``exported_revision``:
  the revision of the last export that is known to be on a disk; 0 if there was none.
- ``tag_key``: 32 bytes, base64; what pairs are known again by, and used for nothing else. ``ledger_id``: the
  ledger that was last used with it, 32 hex digits. Both are empty until there is one, and are no change that
  counts: no blob needs them.
- ``reserve_secret``: 32 bytes, base64; what the keys of reserve segments are derived from (``core/segment``),
  and used for nothing else. Empty until there is one, and in every export: it stays with its machine.

Version 1, which had no tags and no revisions, is read as one that was never exported; versions 1 and 2 had
neither tag key nor ledger, and version 3 no reserve secret.

Fields that are not known are refused: the next write would lose them. A change that an older kpcache
must not touch raises the version.
"""

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from kpcache.keyring import crypto, names

FORMAT: Final = "kpcache keyring"
VERSION: Final = 4
TAG_KEY_BYTES: Final = 32
RESERVE_SECRET_BYTES: Final = 32
MAX_TAGS: Final = 50  # of one key (KMS, TagResource)
STATES: Final = frozenset({"Enabled", "Disabled", "PendingDeletion"})
# KMS's own bounds, which hold for all that came in by a request; a file made by hand must not hold what no
# answer can tell.
_MAX_DESCRIPTION: Final = 8192
_MAX_TAG_KEY, _MAX_TAG_VALUE = 128, 256
_MAX_TIME_S: Final = 253402300799.0  # the end of the year 9999, the last that a date can name
_MAX_REVISION: Final = 2**53  # whole in every reader of JSON
# What a keyring begins with must leave it more changes than anyone can make.
MAX_IMPORTED_REVISION: Final = 2**52
_CONTENT_FIELDS: Final = {
    "keys", "aliases", "revision", "exported_revision", "tag_key", "ledger_id", "reserve_secret",
}  # fmt: skip
_KEY_FIELDS: Final = {"key_id", "state", "created_s", "deletion_s", "description", "tags", "materials"}
T = TypeVar("T")


class DocumentError(Exception):
    """The bytes are not a keyring that this version can read. The message says where, and shows no value."""


class NewerVersionError(DocumentError):
    """A later kpcache wrote this. There is nothing wrong with it."""


@dataclass(frozen=True, slots=True, repr=False)
class Material:
    """One secret of a key: 32 bytes; ``material_id`` is ``crypto.material_id`` of it. No representation."""

    material_id: str
    created_s: float
    secret: bytes


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One key as stored. ``materials`` is never empty, oldest first; the last one wraps."""

    key_id: str
    state: str
    created_s: float
    deletion_s: float | None
    description: str
    tags: Mapping[str, str]
    materials: tuple[Material, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """The whole keyring. Every alias names a key that is there; ``changes`` has all legal changes."""

    keys: tuple[KeyRecord, ...]
    aliases: Mapping[str, str]
    revision: int
    exported_revision: int
    tag_key: bytes = field(default=b"", repr=False)
    ledger_id: str = ""
    reserve_secret: bytes = field(default=b"", repr=False)


def encode(document: Document) -> bytes:
    """The bytes of the file, ASCII, ending in a newline. They hold the secrets in clear."""
    content = {
        "keys": [_key_as_json(key) for key in document.keys],
        "aliases": dict(document.aliases),
        "revision": document.revision,
        "exported_revision": document.exported_revision,
        "tag_key": base64.b64encode(document.tag_key).decode("ascii"),
        "ledger_id": document.ledger_id,
        "reserve_secret": base64.b64encode(document.reserve_secret).decode("ascii"),
    }
    file = {"format": FORMAT, "version": VERSION, "checksum": _checksum(content), "content": content}
    return json.dumps(file, indent=1).encode("ascii") + b"\n"


def encode_export(document: Document) -> bytes:
    """As ``encode``, for another place: without what opens the reserve of this one."""
    return encode(replace(document, reserve_secret=b""))


def decode(data: bytes) -> Document:
    """The keyring in the bytes of a file. Raises ``DocumentError``."""
    file: object = None
    with contextlib.suppress(ValueError, RecursionError):
        file = json.loads(data)
    if file is None:
        # Raised out here: a JSONDecodeError carries the whole document, secrets included, and as the context
        # of this error it would travel with it.
        raise DocumentError("it is not JSON")
    if not isinstance(file, dict) or file.get("format") != FORMAT:
        raise DocumentError("it is not a kpcache keyring")
    version = require_version(file, VERSION)
    content = _field(file, "content", dict, "")
    if _field(file, "checksum", str, "") != _checksum(content):
        raise DocumentError("its checksum does not match: it is damaged, or was edited by hand")
    if version == 1:
        content = _from_version_1(content)
    if version <= 2:
        content = _from_version_2(content)
    return _document(_from_version_3(content) if version <= 3 else content)


def require_version(file: Mapping[str, Any], newest: int) -> int:
    """The file's version, from 1 to ``newest``. Raises ``NewerVersionError`` for one yet to come."""
    version = file.get("version")
    if type(version) is int and version > newest:
        raise NewerVersionError(
            f"a later kpcache wrote it, in version {min(version, 10**9)}; this one reads up to {newest}"
        )
    if type(version) is not int or version < 1:
        raise DocumentError("version is no whole number above 0")
    return version


def _from_version_1(content: dict[str, Any]) -> dict[str, Any]:
    _only(content, {"keys", "aliases"}, "content")
    keys = [
        {**_only(key, _KEY_FIELDS - {"tags"}, f"content.keys[{index}]"), "tags": {}}
        for index, key in enumerate(_field(content, "keys", list, "content"))
    ]
    return {**content, "keys": keys, "revision": 1, "exported_revision": 0}


def _from_version_2(content: dict[str, Any]) -> dict[str, Any]:
    _only(content, _CONTENT_FIELDS - {"tag_key", "ledger_id", "reserve_secret"}, "content")
    return {**content, "tag_key": "", "ledger_id": ""}


def _from_version_3(content: dict[str, Any]) -> dict[str, Any]:
    _only(content, _CONTENT_FIELDS - {"reserve_secret"}, "content")
    return {**content, "reserve_secret": ""}


def _document(content: dict[str, Any]) -> Document:
    _only(content, _CONTENT_FIELDS, "content")
    records = _field(content, "keys", list, "content")
    keys = tuple(_key_from_json(item, f"content.keys[{index}]") for index, item in enumerate(records))
    aliases = _strings(content, "aliases", "content")
    ids = {key.key_id for key in keys}
    if len(ids) != len(keys):
        raise DocumentError("content.keys names a key twice")
    if not ids.issuperset(aliases.values()):
        raise DocumentError("content.aliases names a key that is not there")
    if not all(map(names.is_alias, aliases)):
        raise DocumentError("content.aliases has a name that is not alias/ and letters, digits, /_-")
    revision = _field(content, "revision", int, "content")
    exported = _field(content, "exported_revision", int, "content")
    if not (0 <= exported <= revision and 1 <= revision <= _MAX_REVISION):
        raise DocumentError("content.revision and content.exported_revision do not fit")
    ledger_id = _field(content, "ledger_id", str, "content")
    if ledger_id and not re.fullmatch("[0-9a-f]{32}", ledger_id):
        raise DocumentError("content.ledger_id is not of 32 hex digits")
    tag_key = _secret(content, "tag_key", TAG_KEY_BYTES)
    reserve_secret = _secret(content, "reserve_secret", RESERVE_SECRET_BYTES)
    return Document(keys, aliases, revision, exported, tag_key, ledger_id, reserve_secret)


def _secret(content: dict[str, Any], name: str, size: int) -> bytes:
    """So many bytes, or none."""
    text = _field(content, name, str, "content")
    try:
        secret = base64.b64decode(text, validate=True)
    except ValueError:
        raise DocumentError(f"content.{name} is not base64") from None
    if len(secret) not in (0, size):
        raise DocumentError(f"content.{name} does not have {size} bytes")
    return secret


def _checksum(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _key_as_json(key: KeyRecord) -> dict[str, Any]:
    materials = [
        {
            "material_id": material.material_id,
            "created_s": material.created_s,
            "secret": base64.b64encode(material.secret).decode("ascii"),
        }
        for material in key.materials
    ]
    return {
        "key_id": key.key_id,
        "state": key.state,
        "created_s": key.created_s,
        "deletion_s": key.deletion_s,
        "description": key.description,
        "tags": dict(key.tags),
        "materials": materials,
    }


def _key_from_json(item: object, where: str) -> KeyRecord:
    fields = _only(item, _KEY_FIELDS, where)
    key_id = _field(fields, "key_id", str, where)
    if not names.is_key_id(key_id):
        raise DocumentError(f"{where}.key_id is not a UUID")
    state = _field(fields, "state", str, where)
    if state not in STATES:
        raise DocumentError(f"{where}.state is not one of {', '.join(sorted(STATES))}")
    pending = state == "PendingDeletion"
    if pending is (fields["deletion_s"] is None):
        raise DocumentError(f"{where}.deletion_s does not fit the state")
    items = _field(fields, "materials", list, where)
    materials = tuple(_material(entry, key_id, f"{where}.materials[{n}]") for n, entry in enumerate(items))
    if not materials:
        raise DocumentError(f"{where}.materials is empty")
    if len({material.material_id for material in materials}) != len(materials):
        raise DocumentError(f"{where}.materials names a material twice")
    return KeyRecord(
        key_id=key_id,
        state=state,
        created_s=_time(fields, "created_s", where),
        deletion_s=_time(fields, "deletion_s", where) if pending else None,
        description=_text(fields["description"], f"{where}.description", _MAX_DESCRIPTION),
        tags=_tags(fields, where),
        materials=materials,
    )


def _material(item: object, key_id: str, where: str) -> Material:
    fields = _only(item, {"material_id", "created_s", "secret"}, where)
    try:
        secret = base64.b64decode(_field(fields, "secret", str, where), validate=True)
    except ValueError:
        raise DocumentError(f"{where}.secret is not base64") from None
    if len(secret) != crypto.MATERIAL_BYTES:
        raise DocumentError(f"{where}.secret does not have {crypto.MATERIAL_BYTES} bytes")
    name = _field(fields, "material_id", str, where)
    if name != crypto.material_id(secret, key_id):
        raise DocumentError(f"{where}.material_id is not the one of this secret under this key")
    return Material(name, _time(fields, "created_s", where), secret)


def _only(item: object, names: set[str], where: str) -> dict[str, Any]:
    """The object, if it has exactly these fields."""
    if not isinstance(item, dict) or item.keys() != names:
        raise DocumentError(f"{where} does not have exactly the fields {', '.join(sorted(names))}")
    return item


def _field(fields: dict[str, Any], name: str, kind: type[T], where: str) -> T:
    value = fields.get(name)
    if type(value) is not kind:
        raise DocumentError(f"{where}.{name}".lstrip(".") + f" is not of type {kind.__name__}")
    return value


def _time(fields: dict[str, Any], name: str, where: str) -> float:
    value = _field(fields, name, float, where)
    if not 0 <= value <= _MAX_TIME_S:  # nor NaN, which JSON has not, and Python's reader takes
        raise DocumentError(f"{where}.{name} is not a time")
    return value


def _tags(fields: dict[str, Any], where: str) -> dict[str, str]:
    where, tags = f"{where}.tags", _strings(fields, "tags", where)
    if len(tags) > MAX_TAGS:
        raise DocumentError(f"{where} has more than {MAX_TAGS} entries")
    for key, value in tags.items():
        _text(key, f"a key of {where}", _MAX_TAG_KEY)
        _text(value, f"a value of {where}", _MAX_TAG_VALUE)
    return tags


def _text(value: object, where: str, most: int) -> str:
    """Text of at most so many characters that has a UTF-8 form."""
    if type(value) is not str:
        raise DocumentError(f"{where} is not of type str")
    if len(value) > most or any("\ud800" <= character <= "\udfff" for character in value):
        raise DocumentError(f"{where} is not text of at most {most} characters")
    return value


def _strings(fields: dict[str, Any], name: str, where: str) -> dict[str, str]:
    table: dict[str, Any] = _field(fields, name, dict, where)
    if not all(type(value) is str for value in table.values()):
        raise DocumentError(f"{where}.{name} has a value that is not of type str")
    return table
