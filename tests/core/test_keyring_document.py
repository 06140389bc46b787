"""The keyring file's bytes: what is read back, and what is refused, without ever showing a secret."""

import base64
import dataclasses
import hashlib
import json
import math
import traceback
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpcache.keyring import crypto, document
from kpcache.keyring.document import Document, DocumentError, KeyRecord, Material
from tests.keyrings import document_of, record

times = st.floats(min_value=0, max_value=4e9)


@st.composite
def records(draw: st.DrawFn) -> KeyRecord:
    key_id = str(uuid.UUID(bytes=draw(st.binary(min_size=16, max_size=16)), version=4))
    state = draw(st.sampled_from(sorted(document.STATES)))
    secrets = draw(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=3, unique=True))
    materials = tuple(Material(crypto.material_id(item, key_id), draw(times), item) for item in secrets)
    deletion_s = draw(times) if state == "PendingDeletion" else None
    tags = draw(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
    return KeyRecord(key_id, state, draw(times), deletion_s, draw(st.text(max_size=9)), tags, materials)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    keys = draw(st.lists(records(), min_size=1, max_size=3, unique_by=lambda key: key.key_id))
    names = draw(st.lists(st.from_regex(r"alias/[a-z]{1,5}", fullmatch=True), unique=True, max_size=4))
    aliases = {name: draw(st.sampled_from(keys)).key_id for name in names}
    revision = draw(st.integers(1, 99))
    tag_key = draw(st.sampled_from([b"", bytes(range(32))]))
    ledger_id = draw(st.sampled_from(["", "0123456789abcdef" * 2]))
    exported, secret = draw(st.integers(0, revision)), draw(st.sampled_from([b"", bytes(range(7, 39))]))
    return Document(tuple(keys), aliases, revision, exported, tag_key, ledger_id, secret)


RECORD = record()
SECRET = RECORD.materials[0].secret
GOOD = document.encode(document_of(RECORD))


def refusal(data: bytes) -> str:
    """The message; neither it, nor the traceback, nor what travels with the error shows the secret."""
    with pytest.raises(DocumentError) as caught:
        document.decode(data)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__dict__)
    for form in (base64.b64encode(SECRET).decode(), SECRET.hex(), repr(SECRET)):
        assert form not in told
    cause = caught.value.__context__
    assert not hasattr(cause, "doc"), "a JSONDecodeError carries the document"
    assert not hasattr(cause, "object"), "and so does a UnicodeDecodeError"
    return str(caught.value)


def changed(change: Callable[[dict[str, Any]], object], *, seal: bool = True) -> bytes:
    """The good file with its content changed; with ``seal``, under a checksum that fits."""
    file = json.loads(GOOD)
    change(file["content"])
    if seal:
        canonical = json.dumps(file["content"], sort_keys=True, separators=(",", ":"))
        file["checksum"] = hashlib.sha256(canonical.encode()).hexdigest()
    return json.dumps(file).encode()


@settings(deadline=None)
@given(documents())
def test_what_was_written_is_read(content: Document) -> None:
    assert document.decode(document.encode(content)) == content


def test_every_damaged_byte_is_found() -> None:
    """A flip may leave JSON that means the same (in its white space): then nothing is lost."""
    good = document.decode(GOOD)
    found = 0
    for offset in range(len(GOOD)):
        damaged = bytearray(GOOD)
        damaged[offset] ^= 1
        try:
            assert document.decode(bytes(damaged)) == good
        except DocumentError:
            found += 1
    assert found > 0.8 * len(GOOD)


@pytest.mark.parametrize("size", range(0, len(GOOD) - 1, 7))
def test_a_part_of_a_file_is_refused(size: int) -> None:
    assert refusal(GOOD[:size]) == "it is not JSON"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\xff", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"[]", "it is not a kpcache keyring"),
        (b'{"format": "another"}', "it is not a kpcache keyring"),
        (
            GOOD.replace(b'"version": 4', b'"version": 5'),
            "a later kpcache wrote it, in version 5; this",
        ),
        (GOOD.replace(b'"version": 4', b'"version": true'), "version is no whole number above 0"),
        (GOOD.replace(b'"version": 4', b'"version": 0'), "version is no whole number above 0"),
        (GOOD.replace(b'"checksum"', b'"check"'), "checksum is not of type str"),
        (GOOD.replace(b'"content"', b'"contents"'), "content is not of type dict"),
        (changed(lambda content: content["aliases"].clear(), seal=False), "its checksum does not match"),
    ],
)
def test_a_file_that_is_not_this_versions_keyring(data: bytes, told: str) -> None:
    assert told in refusal(data)


def _key(content: dict[str, Any]) -> Any:
    return content["keys"][0]


def _material(content: dict[str, Any]) -> Any:
    return content["keys"][0]["materials"][0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content.update(grants=[]), "content does not have exactly the fields"),
        (lambda content: content.update(keys={}), "content.keys is not of type list"),
        (lambda content: content.update(aliases=[]), "content.aliases is not of type dict"),
        (lambda content: content["aliases"].update({"alias/x": "nobody"}), "a key that is not there"),
        (lambda content: content["aliases"].update({"alias/x": None}), "a value that is not of type str"),
        (
            lambda content: content["aliases"].update({"x": _key(content)["key_id"]}),
            "a name that is not alias/",
        ),
        (lambda content: content.update(revision=True), "content.revision is not of type int"),
        (lambda content: content.update(revision=2**53 + 1), "content.exported_revision do not fit"),
        (lambda content: content.update(revision=0), "content.exported_revision do not fit"),
        (lambda content: content.update(exported_revision=2), "content.exported_revision do not fit"),
        (lambda content: content.update(exported_revision=-1), "content.exported_revision do not fit"),
        (lambda content: content.update(tag_key=None), "content.tag_key is not of type str"),
        (lambda content: content.update(tag_key="*"), "content.tag_key is not base64"),
        (lambda content: content.update(tag_key="AAAA"), "content.tag_key does not have 32 bytes"),
        (lambda content: content.update(reserve_secret="AA=="), "content.reserve_secret does not have 32"),
        (lambda content: content.update(reserve_secret=7), "content.reserve_secret is not of type str"),
        (lambda content: content.update(ledger_id="../x"), "content.ledger_id is not of 32 hex digits"),
        (lambda content: content["keys"].append(_key(content)), "names a key twice"),
        (lambda content: content["keys"].append(7), "keys[1] does not have exactly the fields"),
        (lambda content: _key(content).update(policy=""), "keys[0] does not have exactly the fields"),
        (lambda content: _key(content).update(key_id="KEY"), "keys[0].key_id is not a UUID"),
        (lambda content: _key(content).update(state="Gone"), "keys[0].state is not one of Disabled, Enabled"),
        (lambda content: _key(content).update(created_s="1"), "keys[0].created_s is not of type float"),
        (lambda content: _key(content).update(created_s=True), "keys[0].created_s is not of type float"),
        (lambda content: _key(content).update(deletion_s=1.0), "deletion_s does not fit the state"),
        (lambda content: _key(content).update(state="PendingDeletion"), "deletion_s does not fit the state"),
        (lambda content: _key(content).update(created_s=math.nan), "keys[0].created_s is not a time"),
        (lambda content: _key(content).update(created_s=-1.0), "keys[0].created_s is not a time"),
        (lambda content: _key(content).update(created_s=1e300), "keys[0].created_s is not a time"),
        (lambda content: _key(content).update(description="d" * 8193), "description is not text of at most"),
        (lambda content: _key(content).update(description="\ud800"), "description is not text of at most"),
        (lambda content: _key(content).update(tags={"k" * 129: ""}), "a key of content.keys[0].tags is not"),
        (
            lambda content: _key(content).update(tags={"k": "v" * 257}),
            "a value of content.keys[0].tags is",
        ),
        (
            lambda content: _key(content).update(tags={str(n): "" for n in range(51)}),
            "tags has more than 50 entries",
        ),
        (lambda content: _key(content).update(tags={"a": 1}), "tags has a value that is not of type str"),
        (
            lambda content: _key(content)["materials"].append(_material(content)),
            "keys[0].materials names a material twice",
        ),
        (lambda content: _key(content).update(materials=[]), "keys[0].materials is empty"),
        (lambda content: _material(content).pop("created_s"), "materials[0] does not have exactly"),
        (lambda content: _material(content).update(secret="*"), "materials[0].secret is not base64"),
        (lambda content: _material(content).update(secret="AAAA"), "secret does not have 32 bytes"),
        (lambda content: _material(content).update(material_id="0" * 64), "is not the one of this secret"),
    ],
)
def test_content_out_of_order_is_named(change: Callable[[dict[str, Any]], object], told: str) -> None:
    assert told in refusal(changed(change))


def test_a_secret_moved_to_another_key_is_found() -> None:
    """Its blobs could not be opened: the material's id is bound to the key's."""
    other = str(uuid.UUID(int=7))
    moved = changed(lambda content: (_key(content).update(key_id=other), content["aliases"].clear()))
    assert "is not the one of this secret under this key" in refusal(moved)


def test_a_file_of_version_2_is_read_as_one_that_has_no_tag_key_yet() -> None:
    content = document_of(RECORD)
    file = json.loads(document.encode(dataclasses.replace(content, revision=7, exported_revision=3)))
    for name in ("tag_key", "ledger_id", "reserve_secret"):
        del file["content"][name]
    file["version"] = 2
    canonical = json.dumps(file["content"], sort_keys=True, separators=(",", ":"))
    file["checksum"] = hashlib.sha256(canonical.encode()).hexdigest()
    found = document.decode(json.dumps(file).encode())
    assert (found.revision, found.exported_revision, found.tag_key, found.ledger_id) == (7, 3, b"", "")
    assert found.keys == content.keys


def test_a_file_of_version_3_is_read_as_one_that_has_no_reserve_secret_yet() -> None:
    content = dataclasses.replace(document_of(RECORD), tag_key=b"k" * 32, ledger_id="ab" * 16)
    file = json.loads(document.encode(content))
    del file["content"]["reserve_secret"]
    file["version"] = 3
    canonical = json.dumps(file["content"], sort_keys=True, separators=(",", ":"))
    file["checksum"] = hashlib.sha256(canonical.encode()).hexdigest()
    assert document.decode(json.dumps(file).encode()) == content
    file["content"]["reserve_secret"] = ""
    assert "checksum" in refusal(json.dumps(file).encode())


def test_the_tag_key_and_the_reserve_secret_are_not_shown() -> None:
    secret = b"7" * 32
    assert "7777" not in repr(dataclasses.replace(document_of(RECORD), tag_key=secret, reserve_secret=secret))


def test_an_export_is_without_the_reserve_secret_and_whole_otherwise() -> None:
    content = dataclasses.replace(
        document_of(RECORD), tag_key=b"k" * 32, ledger_id="ab" * 16, reserve_secret=b"s" * 32
    )
    exported = document.decode(document.encode_export(content))
    assert exported == dataclasses.replace(content, reserve_secret=b"")


def test_a_file_of_version_1_is_read_as_one_that_was_never_exported() -> None:
    file = json.loads(GOOD)
    for name in ("revision", "exported_revision", "tag_key", "ledger_id", "reserve_secret"):
        del file["content"][name]
    del file["content"]["keys"][0]["tags"]
    file["version"] = 1
    canonical = json.dumps(file["content"], sort_keys=True, separators=(",", ":"))
    file["checksum"] = hashlib.sha256(canonical.encode()).hexdigest()
    assert document.decode(json.dumps(file).encode()) == document.decode(GOOD)
    file["content"]["keys"][0]["tags"] = {}
    assert "checksum" in refusal(json.dumps(file).encode())
