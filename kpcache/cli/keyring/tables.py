"""Keys as tables for people, made with rich: import this only where one is shown."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kpcache.cli.output import MAX_LINE_CHARACTERS, moment
from kpcache.core.text import printable

_STATE_STYLES = {"Enabled": "green", "Disabled": "yellow", "PendingDeletion": "red"}
Entries = Sequence[Mapping[str, Any]]


def keys_table(keys: Entries, aliases: Entries) -> Table:
    """A row a key, as KeyMetadata has it; ``aliases`` are those of the whole keyring."""
    table = _table("KEY", "STATE", "MADE", "ALIASES", "DESCRIPTION")
    for key in keys:
        names = [alias["AliasName"] for alias in aliases if alias["TargetKeyId"] == key["KeyId"]]
        table.add_row(
            _text(key["KeyId"]),
            _text(key["KeyState"], style=_STATE_STYLES.get(key["KeyState"], "")),
            _text(moment(key["CreationDate"])),
            _text("\n".join(names)),
            _text(key["Description"]),
        )
    return table


def key_view(everything: Mapping[str, Any]) -> Group:
    """One key: what ``keyring describe --json`` has."""
    key = everything["KeyMetadata"]
    grid = Table.grid(padding=(0, 2))
    rows = [
        ("key", key["KeyId"]),
        ("ARN", key["Arn"]),
        ("state", key["KeyState"]),
        ("made", moment(key["CreationDate"])),
        ("description", key["Description"] or "-"),
        ("aliases", "\n".join(alias["AliasName"] for alias in everything["Aliases"]) or "-"),
        ("tags", "\n".join(f"{tag['TagKey']}={tag['TagValue']}" for tag in everything["Tags"]) or "-"),
    ]
    if "DeletionDate" in key:
        rows.insert(3, ("purge", f"not before {moment(key['DeletionDate'])}"))
    for name, value in rows:
        grid.add_row(name, _text(value))
    materials = _table("MATERIAL", "MADE", "USED TO")
    for entry in everything["Rotations"]:
        # The first material is as old as the key, and KMS gives it no date of rotation.
        made = entry.get("RotationDate", key["CreationDate"])
        use = "encrypt and open" if entry["KeyMaterialState"] == "CURRENT" else "open"
        materials.add_row(_text(entry["KeyMaterialId"]), moment(made), use)
    return Group(grid, Text(), materials)


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in names:
        # Folded, never cut: an id of which a part is missing is none.
        table.add_column(name, overflow="fold")
    return table


def _text(value: str, style: str = "") -> Text:
    lines = (printable(line, MAX_LINE_CHARACTERS) for line in value.split("\n"))
    return Text("\n".join(lines), style=style)
