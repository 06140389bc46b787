"""The keyring's content and its file, which change together: opened at a start, changed one step at a time.

A change is in force when it is durable, not before. The file is compared with what was last read or
written here before each change, since an operator may have put another one in its place; writing over
that would lose keys.

Blocking, and for one thread at a time, but for ``look``. Whoever opens a vault holds the folder's lock.
"""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from kpcache.core.contract import shown
from kpcache.errors import ConfigError, KeyUnavailableException
from kpcache.keyring import changes, crypto, names, opening
from kpcache.keyring.document import MAX_IMPORTED_REVISION, Document
from kpcache.keyring.files import LostError
from kpcache.keyring.refusals import (
    Create,
    opened,
    other_hand,
    require_may_create,
    require_not_sealed_before,
    why_not_made,
)
from kpcache.keyring.seal import Sealer, Unlock
from kpcache.keyring.size import encoded
from kpcache.keyring.store import Previous, Store

Urandom = Callable[[int], bytes]


class _Unconfirmed(NamedTuple):
    """What a write may have left that failed in its last step, and how to write it once more."""

    data: bytes
    content: Document
    previous: Previous


class Sight(NamedTuple):
    """What a look found. ``fault``: why no change can be made, with the cure; empty if all is well.
    ``is_lost``: the file is gone or is another, so the keys in use are in memory only. ``is_to_mend``:
    ``mend`` can do something about it."""

    fault: str = ""
    is_lost: bool = False
    is_to_mend: bool = False


class Vault:
    """A keyring that is durable. ``content`` is what is in the file, as far as that can be known."""

    def __init__(self, state_dir: Path, sealer: Sealer, data: bytes, content: Document) -> None:
        """For the class methods here: ``data`` is in the file, durable, and says ``content``."""
        self.content = content
        self._state_dir = state_dir
        self._sealer = sealer
        self._digest = _digest(data)
        self._unconfirmed: _Unconfirmed | None = None

    @classmethod
    def open(
        cls,
        state_dir: Path,
        *,
        create: Create,
        default_alias: str,
        unlock: Unlock,
        now: Callable[[], float] = time.time,
        urandom: Urandom = os.urandom,
    ) -> "Vault":
        """Read ``state_dir/keyring.json``; make it first, with one key, where that is allowed.

        The one key is named ``default_alias``. It is allowed with ``create="if_empty"`` in a folder
        that holds nothing else and never held a keyring: one that is missing beside other state, or
        beside its mark (see ``store``), was lost, and a new one would hide that. A plain file that
        ``unlock`` could seal is sealed, but for one where a sealed one was. ``now`` gives Unix seconds,
        ``urandom`` bytes of the kernel's generator. Raises ``ConfigError`` with the cure.
        """
        crypto.require_support()
        if not names.is_alias(default_alias):
            raise ConfigError(
                f"keyring.default_alias: '{shown(default_alias)}' is not alias/ and letters, digits, /_-"
            )
        sealer = Sealer(unlock, urandom)
        with Store(state_dir) as store:
            data = store.read()
            if data is not None:
                data, content = opening.take(store, sealer, data)
            else:
                require_may_create(store, create)
                content = changes.first(default_alias, float(now()), urandom)
                data = opening.make(store, sealer, content)
                opening.tell_of_first(store)
        if default_alias not in content.aliases:
            known = ", ".join(sorted(content.aliases)) or "none"
            raise ConfigError(
                f"keyring.default_alias: {store.path} has no {default_alias}; its aliases: {known}"
            )
        return cls(state_dir, sealer, data, content)

    @classmethod
    def at_rest(cls, state_dir: Path, *, unlock: Unlock, urandom: Urandom = os.urandom) -> "Vault":
        """Read the keyring for a command while no daemon runs, which wraps nothing: until there is a change
        nothing is written, and a plain file stays plain. Raises ``ConfigError`` with the cure.
        """
        crypto.require_support()
        sealer = Sealer(unlock, urandom)
        with Store(state_dir) as store:
            data = store.read()
            if data is None:
                raise ConfigError(why_not_made(store, "never"))
            content, was_sealed = opened(data, store, sealer)
            if not was_sealed:
                require_not_sealed_before(store)
                sealer = Sealer(Unlock(), urandom)
        return cls(state_dir, sealer, data, content)

    @classmethod
    def import_first(
        cls, state_dir: Path, content: Document, *, unlock: Unlock, urandom: Urandom = os.urandom
    ) -> "Vault":
        """Put an exported keyring into a folder where a first start could make one, by the same rules.

        All that is in it is in an export: that is where it came from. A reserve secret is not taken over,
        should it have one: what was sealed on another machine is never opened here.
        Raises ``ConfigError`` with the cure, and ``LimitExceededException``.
        """
        crypto.require_support()
        if content.revision > MAX_IMPORTED_REVISION:
            raise ConfigError(
                f"the export's revision, {content.revision}, is none that changes lead to: it was made by "
                "hand, and a keyring of it could soon be changed no more; import another export"
            )
        sealer = Sealer(unlock, urandom)
        with Store(state_dir) as store:
            if store.read() is not None:
                raise ConfigError(f"{store.path}: there is a keyring already; import into that one instead")
            require_may_create(store, "if_empty")
            exported = changes.mark_exported(replace(content, reserve_secret=b""), content.revision)
            data = opening.make(store, sealer, exported)
        return cls(state_dir, sealer, data, exported)

    @property
    def is_sealed(self) -> str:
        """ "file" where the keyring is plain at rest, else the mode of ``Unlock`` that opens it."""
        return self._sealer.mode

    def change(self, fn: Callable[[Document], Document], *, destroys: bool = False) -> Document:
        """Make what ``fn`` makes of the content durable, and return it; ``fn``'s refusals pass through.

        ``destroys``: what is not in the new content must not be in any copy here either (see ``store``).

        Raises ``LimitExceededException``; and ``KeyUnavailableException``, with path, reason and cure,
        where the file cannot be read or written or is another than the one known here. The file is then
        the old or the new one, whole. Whatever comes, ``content`` may be another than before: a write
        whose last step failed earlier can turn out to have succeeded. Let it come into force.
        """
        try:
            with Store(self._state_dir) as store:
                self._read_again(store)
                changed = fn(self.content)
                if changed != self.content:
                    self._write(store, changed, destroys=destroys)
        except ConfigError as error:
            raise KeyUnavailableException(error.message) from error
        return self.content

    def look(self) -> Sight:
        """Whether the file is what it should be: one that goes while it is in use is missed only at the next
        start. Reads and no more, so that it can be given up where the disk hangs, and may overlap a change.
        """
        unconfirmed, digest = self._unconfirmed, self._digest
        try:
            with Store(self._state_dir) as store:
                data = store.look()
                is_in_doubt = unconfirmed is not None and data == unconfirmed.data
                is_to_mend = is_in_doubt or not store.is_marked()
                if not is_in_doubt and (data is None or _digest(data) != digest):
                    return Sight(other_hand(store, data), True, is_to_mend)
        except LostError as error:
            return Sight(error.message, True, True)
        except ConfigError as error:
            return Sight(error.message)
        return Sight(is_to_mend=is_to_mend)

    def mend(self) -> str:
        """Write what a look found missing; why that could not be done, or nothing.

        A change whose last step failed is written once more, and may then be in force.
        """
        try:
            opening.mark_again(self._state_dir, is_sealed=self._sealer.mode != "file")
            if self._unconfirmed is not None:
                with Store(self._state_dir) as store:
                    if store.look() == self._unconfirmed.data:
                        self._read_again(store)
        except ConfigError as error:
            return error.message
        return ""

    def _read_again(self, store: Store) -> None:
        """Make what is on disk the content, durable: it must be what we left there."""
        data = store.read()
        digest = None if data is None else _digest(data)
        unconfirmed = self._unconfirmed
        if unconfirmed is not None and data == unconfirmed.data:
            # The kernel tells of a failed sync once (fsync(2), EIO): that the one of this read went well does
            # not make up for it. What is written anew is synced anew.
            store.write(unconfirmed.data, previous=unconfirmed.previous)
            self._digest, self.content = _digest(unconfirmed.data), unconfirmed.content
        elif digest != self._digest:
            raise LostError(other_hand(store, data))
        self._unconfirmed = None

    def _write(self, store: Store, changed: Document, *, destroys: bool) -> None:
        data = self._sealer.seal(encoded(changed, self.content))
        is_change = changed.revision != self.content.revision  # the mark of an export is none
        previous: Previous = "new" if destroys else "old" if is_change else "untouched"
        try:
            store.write(data, previous=previous)
        except ConfigError as failure:
            # Once the new file is in its place, the old one is the previous one already.
            again: Previous = "new" if destroys else "untouched"
            self._unconfirmed = _Unconfirmed(data, changed, again)
            self._settle(store, failure)
        else:
            self._digest, self.content = _digest(data), changed

    def _settle(self, store: Store, failure: ConfigError) -> None:
        """After a failed write, find out which state stands; the new one, made durable, is no failure."""
        before = self._digest
        try:
            self._read_again(store)
        except ConfigError as error:
            raise ConfigError(
                f"{failure.message}; whether the change stands is not known, since then: {error.message}; "
                "the next change finds out"
            ) from failure
        if self._digest == before:
            raise ConfigError(f"{failure.message}; the keyring is as it was") from failure


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
