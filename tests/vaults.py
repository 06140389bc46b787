"""Keyrings in files, for tests of the file: opened as the daemon does, and changes to stop and to fail."""

import base64
from pathlib import Path
from typing import Any, Final

import pytest

from kpcache.errors import ConfigError
from kpcache.keyring import Keyring, changes
from kpcache.keyring.document import Document
from kpcache.keyring.seal import Unlock
from kpcache.keyring.vault import Vault
from tests.keyrings import ALIAS

FILE: Final = "keyring.json"
PREVIOUS: Final = "keyring.json.previous"
TEMPORARY: Final = "keyring.json.new"
OLD: Final = "keyring.json.old"
MARK: Final = "keyring.made"
PLAIN: Final = Unlock("file")


def open_vault(
    folder: Path, create: Any = "if_empty", alias: str = ALIAS, *, unlock: Unlock = PLAIN, **sources: Any
) -> Vault:
    """``sources`` are of time and randomness."""
    return Vault.open(folder, create=create, default_alias=alias, unlock=unlock, **sources)


def open_keyring(folder: Path, create: Any = "if_empty", alias: str = ALIAS) -> Keyring:
    """What the daemon wraps and opens with once it has started there."""
    return Keyring(open_vault(folder, create, alias).content)


def refusal(folder: Path, create: Any = "if_empty", alias: str = ALIAS, *, unlock: Unlock = PLAIN) -> str:
    """The message with which a start ends there."""
    with pytest.raises(ConfigError) as caught:
        open_vault(folder, create, alias, unlock=unlock)
    return caught.value.message


# --- a change that adds a material, and one that destroys a key

WEEK_S: Final = 7 * 86400.0


def used_vault(folder: Path, *, unlock: Unlock = PLAIN) -> Vault:
    """A keyring of two keys; the second one can be purged a week after 1970 began, and has been rotated."""
    vault = open_vault(folder, unlock=unlock, now=lambda: 0.0)
    vault.change(lambda c: changes.create_key(c, description="", tags={}, now=0.0, urandom=_bytes_from_0))
    doomed = vault.content.keys[1].key_id
    vault.change(lambda c: changes.rotate(c, doomed, 0.0, lambda size: b"r" * size))
    vault.change(lambda c: changes.schedule_deletion(c, doomed, 7, 0.0))
    return vault


def rotate(content: Document) -> Document:
    """The same new material whoever calls this."""
    return changes.rotate(content, ALIAS, WEEK_S, lambda size: b"s" * size)


def purge(content: Document) -> Document:
    return changes.purge(content, content.keys[1].key_id, WEEK_S)


def _bytes_from_0(size: int) -> bytes:
    return bytes(range(size))


def holds_a_secret(folder: Path, content: Document) -> list[str]:
    """The files in which a secret of the second key of ``content`` can be read."""
    secrets = [base64.b64encode(material.secret) for material in content.keys[1].materials]
    return sorted(
        path.name for path in folder.iterdir() if any(secret in path.read_bytes() for secret in secrets)
    )
