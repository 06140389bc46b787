"""The keyring of a daemon that does not run: its file, under the state folder's lock. Import this only then.

The answers are made by the daemon's own functions, so that a command tells the same either way.
"""

import contextlib
import functools
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kpcache.cli.keyring.access import keep_unreadable
from kpcache.cli.output import TryAgainError
from kpcache.core.settings import Config
from kpcache.daemon.admin_changes import CHANGES, Outcome, Setting
from kpcache.daemon.admin_lists import LISTS
from kpcache.daemon.aws_unlock import unlock_of
from kpcache.daemon.state import FolderInUseError, locked_folder
from kpcache.errors import ConfigError, DaemonUnreachableError
from kpcache.keyring import changes, document, views
from kpcache.keyring.document import Document
from kpcache.keyring.store import FILE_NAME, MARK_NAME
from kpcache.keyring.vault import Vault


@contextlib.contextmanager
def stopped(config: Config, socket: str, *, may_begin: bool = False) -> Iterator["Stopped"]:
    """Hold the state folder, made first if it is missing and ``may_begin``.

    Raises ``DaemonUnreachableError`` where there never was a keyring, ``TryAgainError`` while somebody else
    holds the folder, and ``ConfigError`` with the cure where it is not ours, or the keyring not sound.
    """
    keep_unreadable()
    state_dir = config.daemon.state_dir
    _require_own(state_dir, may_begin=may_begin)
    if not may_begin and not any((state_dir / name).exists() for name in (FILE_NAME, MARK_NAME)):
        raise DaemonUnreachableError(
            f"no daemon on {socket}, and no keyring in {state_dir}: start the daemon (kpcache serve), "
            "or name its settings (--config FILE)"
        )
    try:
        with locked_folder(state_dir):
            yield Stopped(config)
    except FolderInUseError as error:
        raise TryAgainError(
            f"no daemon answers on {socket}, yet another process holds {state_dir}: a daemon that "
            "starts or stops, or another kpcache keyring; try again in a moment"
        ) from error


class Stopped:
    """Answers what the commands ask that work without a daemon."""

    def __init__(self, config: Config) -> None:
        self._state_dir = config.daemon.state_dir
        self._default_alias = config.keyring.default_alias
        self._unlock = unlock_of(config.keyring, os.environ)

    def call(self, method: str, members: Mapping[str, Any]) -> dict[str, Any]:
        if method == "ImportKeyring" and not (self._state_dir / FILE_NAME).exists():
            return self._import_first(members["KeyringDocument"])
        vault = self._vault
        if method == "DescribeKey":
            return {"KeyMetadata": views.key_metadata(changes.find(vault.content, members["KeyId"]))}
        if method == "ExportKeyring":
            exported = document.encode_export(vault.content)
            return {"KeyringDocument": exported, "Revision": vault.content.revision}
        name = f"kpcache.{method}"
        return LISTS[name](vault.content, members) if name in LISTS else self._change(vault, name, members)

    @functools.cached_property
    def _vault(self) -> Vault:
        # Once for a command's several questions: a key that is derived or asked for takes its time. Whether
        # the configured alias is there is for the daemon to say, which cannot do without.
        return Vault.at_rest(self._state_dir, unlock=self._unlock)

    def _change(self, vault: Vault, name: str, members: Mapping[str, Any]) -> dict[str, Any]:
        outcomes: list[Outcome] = []
        setting = Setting(time.time(), os.urandom, self._default_alias, clock_set_s=0.0)

        def step(content: Document) -> Document:
            outcomes.append(CHANGES[name](content, members, setting))
            return outcomes[-1].content

        vault.change(step)
        return outcomes[-1].answer

    def _import_first(self, data: bytes) -> dict[str, Any]:
        """As of an import into a keyring without keys."""
        content = document.decode(data)
        if self._default_alias not in content.aliases:
            known = ", ".join(sorted(content.aliases)) or "none"
            raise ConfigError(
                f"keyring.default_alias: the export has no {self._default_alias}, without which no daemon "
                f"starts; its aliases: {known}; nothing was imported"
            )
        Vault.import_first(self._state_dir, content, unlock=self._unlock)
        return {
            "KeysAdded": [key.key_id for key in content.keys],
            "MaterialsAdded": [],
            "AliasesAdded": sorted(content.aliases),
            "AliasesKept": [],
        }


def _require_own(state_dir: Path, *, may_begin: bool) -> None:
    """Root must not work on the folder of the daemon's user, nor make it where ``may_begin``: what it wrote,
    the daemon could not read."""
    try:
        owner = state_dir.stat().st_uid
    except FileNotFoundError:
        if may_begin:
            _require_own_parent(state_dir)
        return
    except OSError as error:
        raise ConfigError(
            f"{state_dir}: {error.strerror}; run this as the user that the daemon runs as"
        ) from error
    if owner != os.geteuid():
        raise ConfigError(
            f"{state_dir} belongs to uid {owner}: while the daemon is stopped, {_as_user(owner)}"
        )


def _require_own_parent(state_dir: Path) -> None:
    """Whoever has the folder where it would be made is probably who the daemon runs as; root may not be."""
    parent = next(path for path in state_dir.parents if path.exists())
    owner = parent.stat().st_uid
    if owner not in (0, os.geteuid()):
        raise ConfigError(
            f"{state_dir} is missing, and {parent}, where it would be made, belongs to uid {owner}: if the "
            f"daemon runs as that user, {_as_user(owner)}; if not, make the folder first, for its user alone"
        )


def _as_user(uid: int) -> str:
    command = f"setpriv --reuid {uid} --clear-groups kpcache keyring ..."
    return f"run this as that user ({command}, with --config FILE if it has one)"
