"""Why a keyring file is not used, not made, or not written over, and what helps."""

import shlex
from typing import Final, Literal

from kpcache.core.contract import shown
from kpcache.errors import ConfigError
from kpcache.keyring import document
from kpcache.keyring.document import Document, DocumentError, NewerVersionError
from kpcache.keyring.seal import Sealer
from kpcache.keyring.store import FILE_NAME, MARK_NAME, PREVIOUS_NAME, Store

Create = Literal["if_empty", "never"]
# The daemon's ledger, whose tags can be compared under the lost keyring's tag key alone.
_LEDGER_NAMES: Final = ("ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.note")


def require_may_create(store: Store, create: Create) -> None:
    """Refuse a first start where a keyring was, or may have been, with the cure. Raises ``ConfigError``."""
    why = why_not_made(store, create)
    if why:
        raise ConfigError(why)


def why_not_made(store: Store, create: Create) -> str:
    """Why no keyring is made, with the cure, where there is none; empty for a first start."""
    restore = (
        f"restore {FILE_NAME} from its backup{_or_previous(store)}, or move this folder away and import an "
        "export (kpcache keyring import): without it no blob made here can be opened again"
    )
    if store.is_marked():
        return (
            f"{store.path}: missing, yet it was made here, as {MARK_NAME} beside it says; {restore}; "
            f"or, to begin anew and give up every blob made here, run: rm {_and_what_it_leaves(store)}"
        )
    if create == "never":
        return (
            f'{store.path}: missing, and keyring.create is "never"; {restore}; '
            'or, for a first start, set it to "if_empty"'
        )
    strangers = store.strangers()
    if strangers:
        return (
            f"{store.path}: missing, yet the folder was in use (it holds {shown(', '.join(strangers))}); "
            f"{restore}; or, for a first start, give it an empty folder"
        )
    return ""


def _and_what_it_leaves(store: Store) -> str:
    """All that tells of an earlier keyring, for a shell."""
    paths = [store.mark_path]
    if store.has_previous():
        paths.append(store.path.with_name(PREVIOUS_NAME))
    present = store.strangers()
    paths += [store.path.with_name(name) for name in _LEDGER_NAMES if name in present]
    return " ".join(shlex.quote(str(path)) for path in paths)


def _or_previous(store: Store) -> str:
    if not store.has_previous():
        return ""
    return f" or from {PREVIOUS_NAME} beside it, the state before the last change"


def require_not_sealed_before(store: Store) -> None:
    """Refuse a plain file where the keyring was sealed, with the cure. Raises ``ConfigError``.

    Whoever can write the folder and lacks the secret could else give the daemon keys that they know.
    """
    if store.was_sealed():
        raise ConfigError(
            f"{store.path}: plain, yet the keyring of this folder is sealed, as {MARK_NAME} beside it says; "
            f"restore the sealed one from its backup{_or_previous(store)}; or, if it was you who put this "
            f"plain one here, run: rm {shlex.quote(str(store.mark_path))}"
        )


def other_hand(store: Store, data: bytes | None) -> str:
    """What to do about a file that is another than the one in use: ``data``, or None where it is missing."""
    return (
        f"{store.path}: {'removed' if data is None else 'changed'} by another hand, so nothing is "
        "written over it; export the keyring in use if it is to be kept (kpcache keyring export); "
        "stop the daemon first, then put the right file there"
    )


def opened(data: bytes, store: Store, sealer: Sealer) -> tuple[Document, bool]:
    """The document in a file's bytes, and whether they were sealed. Raises ``ConfigError`` with the cure."""
    try:
        plain, was_sealed = sealer.open(data)
        return document.decode(plain), was_sealed
    except NewerVersionError as error:
        raise ConfigError(
            f"{store.path}: {error}; the file is whole: use that kpcache, or a later one"
        ) from None
    except DocumentError as error:
        raise ConfigError(
            f"{store.path}: {error}; restore it from its backup{_or_previous(store)}, and do not delete it: "
            "it is the only way to open the blobs made here"
        ) from None
    except ConfigError as error:
        raise ConfigError(f"{store.path}: {error.message}") from None
