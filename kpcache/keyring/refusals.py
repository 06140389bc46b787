"""Why a keyring file is not used, or not made, and what helps: the cases of a start."""

import shlex
from typing import Literal

from kpcache.core.contract import shown
from kpcache.errors import ConfigError
from kpcache.keyring import document
from kpcache.keyring.document import Document, DocumentError, NewerVersionError
from kpcache.keyring.seal import Sealer
from kpcache.keyring.store import FILE_NAME, MARK_NAME, PREVIOUS_NAME, Store

Create = Literal["if_empty", "never"]


def require_may_create(store: Store, create: Create) -> None:
    """Refuse a first start where a keyring was, or may have been, with the cure. Raises ``ConfigError``."""
    restore = (
        f"restore {FILE_NAME} from its backup{_or_previous(store)}, or move this folder away and import an "
        "export (kpcache keyring import): without it no blob made here can be opened again"
    )
    if store.is_marked():
        raise ConfigError(
            f"{store.path}: missing, yet it was made here, as {MARK_NAME} beside it says; {restore}; "
            "or, to begin anew and give up every blob made here, "
            f"run: rm {_and_previous(store)}"
        )
    if create == "never":
        raise ConfigError(
            f'{store.path}: missing, and keyring.create is "never"; {restore}; '
            'or, for a first start, set it to "if_empty"'
        )
    strangers = store.strangers()
    if strangers:
        raise ConfigError(
            f"{store.path}: missing, yet the folder was in use (it holds {shown(', '.join(strangers))}); "
            f"{restore}; or, for a first start, give it an empty folder"
        )


def _and_previous(store: Store) -> str:
    """All that tells of an earlier keyring, for a shell."""
    paths = [store.mark_path]
    if store.has_previous():
        paths.append(store.path.with_name(PREVIOUS_NAME))
    return " ".join(shlex.quote(str(path)) for path in paths)


def _or_previous(store: Store) -> str:
    if not store.has_previous():
        return ""
    return f" or from {PREVIOUS_NAME} beside it, the state before the last change"


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
