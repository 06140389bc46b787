"""Random lives of a keyring, in real folders, against a model: every blob opens exactly when it should."""

import os
import shutil
import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kpcache.errors import KpcacheError
from kpcache.keyring import Keyring, changes, document
from kpcache.keyring.document import Document
from kpcache.keyring.merge import merge
from kpcache.keyring.seal import Unlock
from kpcache.keyring.vault import Vault
from tests.keyrings import ALIAS

DAY_S = 86400.0
FOREVER_S = 1000 * DAY_S
contexts = st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2)
which = st.integers(0, 99)


@dataclass
class ModelKey:
    """What is believed of one key. ``materials`` are ids, the last one wraps."""

    materials: list[str]
    state: str = "Enabled"
    deletion_s: float = FOREVER_S


@dataclass(frozen=True)
class Blob:
    blob: bytes
    key_id: str
    material_id: str
    plaintext: bytes
    context: dict[str, str]


Believed = dict[str, ModelKey]


class KeyringLife(RuleBasedStateMachine):
    """Blobs outlive everything: keys, folders, and the keyrings that were given up."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp())
        self.now = 1_700_000_000.0
        self.folders = 0
        self.blobs: list[Blob] = []
        self.exports: list[tuple[bytes, Believed]] = []
        self.believed: Believed = {}

    def teardown(self) -> None:
        shutil.rmtree(self.base)

    # --- the keyring in its folder

    def _new_folder(self) -> None:
        self.folders += 1
        self.folder = self.base / str(self.folders)
        self.folder.mkdir(mode=0o700)

    def _open(self) -> None:
        self.vault = Vault.open(
            self.folder, create="if_empty", default_alias=ALIAS, unlock=Unlock("file"), now=lambda: self.now
        )
        self.ring = Keyring(self.vault.content)

    @initialize()
    def first_start(self) -> None:
        self._new_folder()
        self._open()
        self._learn()

    def _learn(self) -> None:
        """Believe in the keys that were not known: their ids and materials are random."""
        for record in self.vault.content.keys:
            self.believed.setdefault(record.key_id, ModelKey([m.material_id for m in record.materials]))

    def _key(self, number: int) -> str:
        # By age, not by id: ids are random, and hypothesis must find the same life in the same choices.
        return list(self.believed)[number % len(self.believed)]

    def _change(
        self, change: Callable[[Document], Document], refused: str = "", *, destroys: bool = False
    ) -> None:
        """Make the change, or have it refused with this code; in force is what is on the disk."""
        code = ""
        try:
            self.vault.change(change, destroys=destroys)
        except KpcacheError as error:
            code = error.code
        assert code == refused
        self.ring.adopt(self.vault.content)

    # --- changes

    @rule()
    def create(self) -> None:
        self._change(
            lambda ring: changes.create_key(ring, description="", tags={}, now=self.now, urandom=os.urandom)
        )
        self._learn()

    @rule(number=which)
    def rotate(self, number: int) -> None:
        key_id = self._key(number)
        key = self.believed[key_id]
        refused = {"Disabled": "DisabledException", "PendingDeletion": "KMSInvalidStateException"}
        self._change(
            lambda ring: changes.rotate(ring, key_id, self.now, os.urandom), refused.get(key.state, "")
        )
        if key.state == "Enabled":
            [*before, new] = [m.material_id for m in changes.find(self.vault.content, key_id).materials]
            assert before == key.materials
            key.materials.append(new)

    @rule(number=which, enabled=st.booleans())
    def enable_or_disable(self, number: int, enabled: bool) -> None:
        key_id = self._key(number)
        key = self.believed[key_id]
        dying = key.state == "PendingDeletion"
        change = changes.enable if enabled else changes.disable
        self._change(lambda ring: change(ring, key_id), "KMSInvalidStateException" if dying else "")
        if not dying:
            key.state = "Enabled" if enabled else "Disabled"

    @rule(number=which, days=st.integers(7, 30))
    def schedule_deletion(self, number: int, days: int) -> None:
        key_id = self._key(number)
        key = self.believed[key_id]
        dying = key.state == "PendingDeletion"
        self._change(
            lambda ring: changes.schedule_deletion(ring, key_id, days, self.now),
            "KMSInvalidStateException" if dying else "",
        )
        if not dying:
            key.state, key.deletion_s = "PendingDeletion", self.now + days * DAY_S

    @rule(number=which)
    def cancel_deletion(self, number: int) -> None:
        key_id = self._key(number)
        key = self.believed[key_id]
        dying = key.state == "PendingDeletion"
        self._change(
            lambda ring: changes.cancel_deletion(ring, key_id), "" if dying else "KMSInvalidStateException"
        )
        if dying:
            key.state, key.deletion_s = "Disabled", FOREVER_S

    @precondition(lambda self: len(self.believed) > 1)
    @rule(number=which)
    def purge(self, number: int) -> None:
        key_id = self._key(number)
        key = self.believed[key_id]
        if ALIAS in (alias for alias, named in self.vault.content.aliases.items() if named == key_id):
            return  # the one that a start needs; another layer's rule
        due = key.state == "PendingDeletion" and self.now >= key.deletion_s
        self._change(
            lambda ring: changes.purge(ring, key_id, self.now),
            "" if due else "KMSInvalidStateException",
            destroys=True,
        )
        if due:
            del self.believed[key_id]

    @rule(days=st.integers(1, 40))
    def time_passes(self, days: int) -> None:
        self.now += days * DAY_S

    # --- use, restarts, export and import

    @rule(number=which, context=contexts)
    def wrap(self, number: int, context: dict[str, str]) -> None:
        key_id = self._key(number)
        key, plaintext = self.believed[key_id], os.urandom(16)
        try:
            wrapped = self.ring.encrypt(self.ring.resolve(key_id), plaintext, context)
        except KpcacheError:
            assert key.state != "Enabled"
            return
        assert (key.state, wrapped.material_id) == ("Enabled", key.materials[-1])
        self.blobs.append(Blob(wrapped.blob, key_id, wrapped.material_id, plaintext, context))

    @rule()
    def restart(self) -> None:
        self._open()

    @rule()
    def export(self) -> None:
        self.exports.append((document.encode(self.vault.content), deepcopy(self.believed)))
        revision = self.vault.content.revision
        self._change(lambda ring: changes.mark_exported(ring, revision))

    @precondition(lambda self: self.exports)
    @rule(number=which)
    def import_into_an_empty_folder(self, number: int) -> None:
        data, believed = self.exports[number % len(self.exports)]
        self._new_folder()
        Vault.import_first(self.folder, document.decode(data), unlock=Unlock("file"))
        self.believed = deepcopy(believed)
        self._open()
        assert self.vault.content.exported_revision == self.vault.content.revision

    @precondition(lambda self: self.exports)
    @rule(number=which)
    def import_into_this_keyring(self, number: int) -> None:
        data, believed = self.exports[number % len(self.exports)]
        other = document.decode(data)
        self._change(lambda ring: merge(ring, other)[0])
        for key_id, theirs in believed.items():
            ours = self.believed.setdefault(key_id, deepcopy(theirs))
            if theirs.materials[: len(ours.materials)] == ours.materials:
                ours.materials = list(theirs.materials)
            else:
                missing = [each for each in theirs.materials if each not in ours.materials]
                ours.materials[-1:] = [*missing, ours.materials[-1]]

    # --- what must hold after every step

    @invariant()
    def every_blob_opens_exactly_when_it_should(self) -> None:
        for blob in self.blobs:
            assert self._outcome(blob.blob, blob.context) == self._expected(blob)
            assert self._outcome(blob.blob, {**blob.context, "more": ""}) == "InvalidCiphertextException"

    def _expected(self, blob: Blob) -> bytes | str:
        key = self.believed.get(blob.key_id)
        if key is None or blob.material_id not in key.materials:
            return "InvalidCiphertextException"
        refused = {"Disabled": "DisabledException", "PendingDeletion": "KMSInvalidStateException"}
        return refused.get(key.state, blob.plaintext)

    def _outcome(self, blob: bytes, context: dict[str, str]) -> bytes | str:
        try:
            return self.ring.decrypt(blob, context).plaintext
        except KpcacheError as error:
            return error.code

    @invariant()
    def the_keys_are_those_believed_in(self) -> None:
        there = {record.key_id: record for record in self.ring.content.keys}
        assert there.keys() == self.believed.keys()
        for key_id, key in self.believed.items():
            assert [m.material_id for m in there[key_id].materials] == key.materials
            assert there[key_id].state == key.state


TestKeyringLife = KeyringLife.TestCase
TestKeyringLife.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
