"""The ledger at a start: under the keyring's tag key, which is made first where there is none (and with it
what else a keyring of an earlier kpcache lacks), and as the ledger that the keyring was used with.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from kpcache.daemon.alarm_file import AlarmFile
from kpcache.daemon.ledger import record_kept
from kpcache.daemon.ledger_file import LedgerFile
from kpcache.daemon.ledger_store import LedgerUnavailableError, Store
from kpcache.daemon.notices import log
from kpcache.daemon.runtime_folder import prepare_runtime_folder
from kpcache.errors import ConfigError, KeyUnavailableException
from kpcache.keyring import changes
from kpcache.keyring.document import Document
from kpcache.keyring.vault import Vault


class Opened(NamedTuple):
    """The ledger, and why it is not open yet, empty if it is; ``kept`` has the alarm of an earlier life that
    is not in it."""

    store: Store
    fault: str
    kept: AlarmFile


def open_ledger(vault: Vault, state_dir: Path, runtime_dir: Path) -> Opened:
    """Raises ``ConfigError`` with the cure for a ledger that is not to be used, and where a keyring of an
    earlier kpcache cannot be given its tag key.
    """
    # Durable before anything is recorded under it: else a power cut would leave rows that none can compare.
    why_not = _change(vault, _with_own_secrets)
    if why_not:
        raise ConfigError(why_not)
    content = vault.content
    folder = _usable(runtime_dir)
    file = LedgerFile(state_dir, content.tag_key, content.ledger_id, os.urandom, runtime_dir=folder)
    kept = AlarmFile(folder)
    kept.read()
    try:
        file.connect()
        record_kept(kept, file)
    except LedgerUnavailableError as error:
        log.error(
            "the ledger cannot be used: %s. No new pairs until it can; it is tried again by itself", error
        )
        return Opened(file, str(error), kept)
    if file.rolled_back:
        log.error(
            "the ledger is rolled back: %s. Pairs that it lacks are not known again, should they be made or "
            "come back once more. If you know why, tell it so: kpcache ledger acknowledge",
            file.rolled_back,
        )
    if file.id != content.ledger_id:
        # After the ledger itself knows that another one is missing.
        why_not = _change(vault, lambda content: changes.with_ledger(content, file.id))
        if why_not:
            log.warning(
                "the ledger's id could not be noted in the keyring, as the next start will: %s", why_not
            )
    return Opened(file, "", kept)


def _usable(runtime_dir: Path) -> Path | None:
    """The runtime folder, if it can be used: without it the ledger has one note less, and no other lack."""
    try:
        prepare_runtime_folder(runtime_dir)
    except ConfigError as error:
        log.warning(
            "daemon.runtime_dir cannot be used: %s. So it is not noticed if the whole state folder is put "
            "back from an older copy, nor is an alarm known that could not be written to the ledger", error,
        )  # fmt: skip
        return None
    return runtime_dir


def _with_own_secrets(content: Document) -> Document:
    return changes.with_reserve_secret(changes.with_tag_key(content, os.urandom), os.urandom)


def _change(vault: Vault, change: Callable[[Document], Document]) -> str:
    """Why it could not be made; empty if it was."""
    try:
        vault.change(change)
    except KeyUnavailableException as error:
        return error.message
    return ""
