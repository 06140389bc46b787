"""Import: one keyring takes in what another one has, and loses nothing of its own."""

import dataclasses

from kpcache.keyring import changes
from kpcache.keyring.document import Document, Material


@dataclasses.dataclass(frozen=True, slots=True)
class Merge:
    """What an import did: ids of keys, ids of materials added to keys that were there, names of aliases.
    ``aliases_kept`` name one key here and another one in what was imported."""

    keys_added: list[str] = dataclasses.field(default_factory=list)
    materials_added: list[str] = dataclasses.field(default_factory=list)
    aliases_added: list[str] = dataclasses.field(default_factory=list)
    aliases_kept: list[str] = dataclasses.field(default_factory=list)


def merge(document: Document, other: Document) -> tuple[Document, Merge]:
    """Add what ``other`` has more: afterwards every blob opens that opened with either of the two.

    What is here stays: a key that both have keeps its state, and its description and tags. Its current
    material too, unless the other's history simply goes on where ours ends.
    """
    done = Merge()
    keys = {record.key_id: record for record in document.keys}
    for theirs in other.keys:
        ours = keys.get(theirs.key_id)
        if ours is None:
            keys[theirs.key_id] = theirs
            done.keys_added.append(theirs.key_id)
            continue
        here = {material.material_id for material in ours.materials}
        done.materials_added.extend(m.material_id for m in theirs.materials if m.material_id not in here)
        keys[ours.key_id] = dataclasses.replace(ours, materials=_united(ours.materials, theirs.materials))
    aliases = dict(document.aliases)
    for alias, key_id in other.aliases.items():
        if aliases.setdefault(alias, key_id) != key_id:
            done.aliases_kept.append(alias)
        elif alias not in document.aliases:
            done.aliases_added.append(alias)
    return changes.revised(document, keys=tuple(keys.values()), aliases=aliases), done


def _united(ours: tuple[Material, ...], theirs: tuple[Material, ...]) -> tuple[Material, ...]:
    our_ids = [material.material_id for material in ours]
    if [material.material_id for material in theirs[: len(ours)]] == our_ids:
        return theirs
    missing = (material for material in theirs if material.material_id not in our_ids)
    return (*ours[:-1], *missing, ours[-1])
