"""An import: what is added, what stays, and which material wraps afterwards."""

import dataclasses
import os

from hypothesis import given, settings
from hypothesis import strategies as st

from kpcache.keyring.document import Document, Material
from kpcache.keyring.merge import Merge, merge
from tests.keyrings import ALIAS, document_of, record

KEY = record()
OURS = document_of(KEY, record(state="Disabled"))
POOL = [Material(f"{n:064x}", 0.0, os.urandom(32)) for n in range(6)]


def test_an_import_adds_what_is_missing_and_removes_nothing() -> None:
    theirs = document_of(new := record(), dataclasses.replace(KEY, state="Disabled", description="theirs"))
    theirs = dataclasses.replace(theirs, aliases={ALIAS: new.key_id, "alias/new": new.key_id})
    after, done = merge(OURS, theirs)
    assert after.keys == (*OURS.keys, new)
    assert dict(after.aliases) == {**OURS.aliases, "alias/new": new.key_id}
    assert done == Merge([new.key_id], [], ["alias/new"], [ALIAS])
    assert after.revision == OURS.revision + 1
    again, nothing = merge(after, theirs)
    assert again is after
    assert nothing == Merge(aliases_kept=[ALIAS])


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=1, unique=True), st.lists(st.integers(0, 5), min_size=1, unique=True)
)
def test_an_import_of_materials_keeps_all_and_ours_current_unless_theirs_goes_on(
    ours: list[int], theirs: list[int]
) -> None:
    def ring(which: list[int]) -> Document:
        return document_of(dataclasses.replace(KEY, materials=tuple(POOL[n] for n in which)))

    after, done = merge(ring(ours), ring(theirs))
    got = [POOL.index(material) for material in after.keys[0].materials]
    assert sorted(got) == sorted({*ours, *theirs})
    goes_on = theirs[: len(ours)] == ours
    assert got[-1] == (theirs[-1] if goes_on else ours[-1])
    assert done.materials_added == [POOL[n].material_id for n in theirs if n not in ours]


def test_an_import_leaves_what_pairs_are_known_again_by() -> None:
    """What is recorded here could not be compared under another key, and this ledger is the one in use."""
    theirs = dataclasses.replace(
        document_of(record()), tag_key=b"t" * 32, ledger_id="ab" * 16, reserve_secret=b"r" * 32
    )
    ours = dataclasses.replace(OURS, tag_key=b"o" * 32, ledger_id="cd" * 16, reserve_secret=b"s" * 32)
    after, _ = merge(ours, theirs)
    assert (after.tag_key, after.ledger_id, after.reserve_secret) == (b"o" * 32, "cd" * 16, b"s" * 32)
    after, _ = merge(OURS, theirs)
    assert (after.tag_key, after.ledger_id, after.reserve_secret) == (b"", "", b""), (
        "the next start makes its own"
    )
