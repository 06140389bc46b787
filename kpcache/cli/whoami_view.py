"""What ``whoami`` shows to people."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kpcache.core.text import printable


def whoami_view(answer: Mapping[str, Any]) -> Group:
    """Who one is to the daemon, on which socket, whether ``admin.sock`` is open, and what is allowed."""
    groups = ", ".join(str(gid) for gid in answer["Groups"]) or "none"
    parts: list[RenderableType] = [
        Text(f"uid {answer['Uid']}, gid {answer['Gid']}, groups {groups}; pid {answer['Pid']}"),
        Text(f"socket: {printable(answer['Socket'])}"),
        _admin_line(answer),
        Text(_standing(answer)),
    ]
    if answer["Note"]:
        parts.append(Text(f"note: {printable(answer['Note'])}", style="yellow"))
    if answer["Allowed"]:
        parts.append(_table(answer["Allowed"]))
    return Group(*parts)


def _admin_line(answer: Mapping[str, Any]) -> Text:
    why = printable(answer["AdminSocketClosed"])
    state = f"not open to you ({why})" if why else "open to you"
    return Text(f"admin socket: {printable(answer['AdminSocket'])} is {state}")


def _standing(answer: Mapping[str, Any]) -> str:
    if answer["Administrator"]:
        return "this is the admin socket, where no [[access]] rule is asked"
    if not answer["RulesInForce"]:
        return "no [[access]] rules: whoever can open the socket may do all of this"
    if not answer["Allowed"]:
        return "no [[access]] rule is for you: ask the administrator for one"
    return "[[access]] rules are in force; you may do this, and nothing else"


def _table(rows: list[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("OPERATION", "SPECS", "KEYS"):
        table.add_column(name, overflow="fold")
    for row in rows:
        specs = row.get("Specs")
        table.add_row(
            Text(printable(row["Operation"])),
            Text("-" if specs is None else _listed(specs, "every spec")),
            Text(_listed(row["KeyIds"], "every key")),
        )
    return table


def _listed(names: str | list[str], every: str) -> str:
    return every if names == "*" else "\n".join(printable(name) for name in names)
