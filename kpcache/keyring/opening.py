"""What a start does to the keyring's file before anything is wrapped: the first one made, one that was found
made sure of; and what the next start must find. For ``vault``."""

import logging
from pathlib import Path

from kpcache.errors import ConfigError
from kpcache.keyring import document
from kpcache.keyring.document import Document
from kpcache.keyring.files import NoRoomError, make_folder, naming
from kpcache.keyring.refusals import opened, require_not_sealed_before
from kpcache.keyring.seal import Sealer
from kpcache.keyring.size import encoded
from kpcache.keyring.store import Store

_log = logging.getLogger("kpcache")


def make(store: Store, sealer: Sealer, content: Document) -> bytes:
    """Write the first keyring of a folder, marked; its file's bytes. Raises ``ConfigError``,
    ``LimitExceededException``."""
    data = sealer.seal(encoded(content))
    store.write(data)
    if store.read() != data:
        raise ConfigError(f"{store.path}: vanished right after it was written")
    store.mark(is_sealed=sealer.mode != "file")
    return data


def tell_of_first(store: Store) -> None:
    """The only sign of a state folder that vanished as a whole."""
    _log.warning(
        "%s was made, as at a first start. If there was a keyring here before, stop now: its folder was lost "
        "or is not mounted, and the new one opens nothing that the old one has encrypted",
        store.path,
    )


def take(store: Store, sealer: Sealer, data: bytes) -> tuple[bytes, Document]:
    """Of what ``store`` has read: the file's bytes, durable, sealed where they can be, and marked; and what
    they say. Raises ``ConfigError`` with the cure."""
    content, was_sealed = opened(data, store, sealer)
    if not was_sealed:
        require_not_sealed_before(store)
    if was_sealed or sealer.mode == "file":
        _write_once_more(store, data)
    else:
        data = sealer.seal(document.encode(content))
        store.write(data, previous="new")
        _log.warning(
            "%s was plain and is now sealed (keyring.unlock = %s); copies made of it earlier, as in "
            "backups, are plain still",
            store.path, sealer.mode,
        )  # fmt: skip
    store.mark(is_sealed=sealer.mode != "file")
    return data, content


def mark_again(state_dir: Path, *, is_sealed: bool) -> None:
    """Have the next start miss the keyring that is in use, where folder or mark are gone: it would take
    itself for the first. Raises ``ConfigError``."""
    with naming(state_dir):
        make_folder(state_dir)
    with Store(state_dir) as store:
        if not store.is_marked():
            store.mark(is_sealed=is_sealed)
            _log.warning(
                "%s was missing and was made again: it keeps the next start from making a new keyring if the "
                "one in use is not there by then",
                store.mark_path,
            )


def _write_once_more(store: Store, data: bytes) -> None:
    """Make sure of a file that another process has written: the kernel tells of a failed sync once (fsync(2),
    EIO), so that the one of ``read`` went well does not make up for one that failed there."""
    try:
        store.write(data, previous="untouched")
    except NoRoomError as error:
        _log.warning(
            "%s: so the keyring could not be written once more, which makes sure that it is on the disk",
            error.message,
        )
