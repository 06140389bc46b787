"""Tables for people, made with rich: import this only where one is shown."""

from collections.abc import Mapping
from typing import IO, Any

from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kpcache.cli.fill import at_hand
from kpcache.cli.output import moment
from kpcache.core.text import printable

_WIDTH_WITHOUT_TERMINAL = 120
_STATE_STYLES = {
    "up": "green", "starting": "yellow", "backoff": "yellow", "stopped": "yellow", "failed": "red",
}  # fmt: skip


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let the caller see it. rich would end the process and point its stdout elsewhere: a daemon whose
        terminal is gone must go on.
        """
        raise BrokenPipeError


def console_for(stream: IO[str]) -> Console:
    """No markup: what a daemon says is shown as it is."""
    width = None if stream.isatty() else _WIDTH_WITHOUT_TERMINAL
    return _Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


def status_view(status: Mapping[str, Any], socket: str | None) -> Group:
    """Headline, the alarm if it stands, settings that are not in force, ledger, keyring, memory if not as it
    should be, pools, workers."""
    return Group(
        headline(status, socket),
        *alarm_lines(status["alarm"]),
        *config_lines(status["config"]),
        ledger_line(status["ledger"]),
        keyring_line(status["keyring"]),
        reserve_line(status["reserve"]),
        *memory_lines(status["memory"]),
        pools_table(status),
        *burnt_lines(status["discarded"]),
        workers_table(status),
    )


def headline(status: Mapping[str, Any], socket: str | None) -> Text:
    words = ["full" if status["full"] else "ready" if status["ready"] else "filling"]
    if not status["issuing"]:
        words = ["QUIESCED, see kpcache resume" if status["quiesced"] else "NOT ISSUING"]
    if status["draining"]:
        words.append("draining")
    refill = status["refill"]
    if refill["holding_back"]:
        words.append(f"refilling with restraint ({refill['allowed']} of {refill['makers']} makers)")
    return Text(
        f"kpcache {printable(str(status['version']))} on {printable(str(socket))}: {', '.join(words)}; "
        f"up {duration(status['uptime_s'])}; connections: {status['connections']}; "
        f"clone guard: {printable(str(status['clone_guard']))}"
    )


def alarm_lines(alarm: Mapping[str, Any] | None) -> list[Text]:
    """Two pairs shared a prime or a public key; nothing if none did."""
    if alarm is None:
        return []
    count = int(alarm["duplicates"])
    if not count:
        return [
            Text(
                f"ALARM since {moment(alarm['since_s'])} or before, and its evidence cannot be read; the "
                "random source of this machine may be broken. What is known: kpcache clear-alarm --show",
                style="bold red",
            )
        ]
    return [
        Text(
            f"ALARM since {moment(alarm['since_s'])}: {count} {'duplicate' if count == 1 else 'duplicates'} "
            f"among fresh pairs, the first of {printable(str(alarm['spec']))}; the random source of this "
            "machine may be broken. See the evidence: kpcache clear-alarm --show",
            style="bold red",
        )
    ]


def config_lines(config: Mapping[str, Any]) -> list[Text]:
    """What the file of settings has that is not in force; nothing if all is."""
    last, waiting, lines = config["last_reload"], config["waits_for_restart"], []
    if not last["successful"]:
        told = (
            f"settings: REFUSED on {moment(last['at'])}, so none was changed: {printable(last['error'], 700)}"
        )
        lines.append(Text(told, style="red"))
    if waiting:
        told = ", ".join(waiting)
        lines.append(Text(f"settings: not in force until a restart: {printable(told, 700)}", style="yellow"))
    return lines


def ledger_line(ledger: Mapping[str, Any]) -> Text:
    """Whether pairs can be recorded, and whether all that was recorded is still known."""
    if not ledger["available"]:
        return Text(f"ledger: UNAVAILABLE, no new pairs: {printable(ledger['fault'], 700)}", style="red")
    line = Text(f"ledger: {ledger['tags']} tags, {max(int(ledger['bytes']), 0) / 2**20:.1f} MiB")
    if ledger["rolled_back"]:
        line.append(
            f"; ROLLED BACK: {printable(ledger['rolled_back'], 700)}; if you know why, run kpcache ledger "
            "acknowledge",
            style="red",
        )
    return line


def keyring_line(keyring: Mapping[str, Any]) -> Text:
    """How the keyring lies on the disk, and whether all of it would survive that disk."""
    if keyring["fault"]:
        return Text(f"keyring: FAULT: {printable(keyring['fault'], 700)}", style="red")
    keys, changes = keyring["keys"], keyring["unexported_changes"]
    sealed = "a plain file" if keyring["sealed"] == "file" else f"sealed ({printable(keyring['sealed'])})"
    line = Text(f"keyring: {keys} {'key' if keys == 1 else 'keys'}, {sealed}; ")
    if keyring["default_key_state"] != "Enabled":
        state = f"{printable(keyring['default_alias'])} is {printable(keyring['default_key_state'])}; "
        line.append(state, style="red")
    if not changes:
        return line.append("all of it exported")
    number = f"{changes} {'change' if changes == 1 else 'changes'}"
    return line.append(f"{number} never exported: run kpcache keyring export", style="yellow")


def reserve_line(reserve: Mapping[str, Any]) -> Text:
    """Whether the pools outlive a restart, and what the last one cost."""
    if not reserve["on"]:
        return Text(
            f"reserve: off, a restart burns the pools: {printable(reserve['why'], 300)}", style="yellow"
        )
    burnt = f"{'' if reserve['burnt_is_exact'] else 'at least '}{reserve['burnt_last_restart']}"
    return Text(f"reserve: on; the last restart kept {reserve['restored']} pairs and burnt {burnt}")


def memory_lines(memory: Mapping[str, Any]) -> list[Text]:
    """How keys in memory could get elsewhere; nothing if no way is known."""
    ways = []
    if not memory["wiped_on_free"]:
        ways.append("freed memory is not overwritten")
    if memory["dumpable"] or memory["core_limit"]:
        ways.append("other processes of its user can read it, or a core file could hold it")
    if memory["swap"] != "none":
        ways.append(f"swap: {printable(str(memory['swap']))}")
    return [Text(f"memory: {'; '.join(ways)}", style="yellow")] if ways else []


def pools_table(status: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("POOL")
    table.add_column("", width=20)
    for name in ("AT HAND", "TARGET", "ISSUED", "DRY", "WAITING"):
        table.add_column(name, justify="right")
    for spec, pool in status["pools"].items():
        held, target = at_hand(pool), pool["target"]
        style = "red" if held < pool["low_water"] else "green"
        table.add_row(
            Text(printable(spec)),
            ProgressBar(total=max(target, 1), completed=min(held, target), width=20),
            Text(str(held), style=style),
            *(Text(str(pool[key])) for key in ("target", "issued", "dry", "waiting")),
        )
    return table


def burnt_lines(discarded: Mapping[str, Mapping[str, int]]) -> list[Text]:
    """Pairs that were made and given to nobody, and why; nothing if there are none."""
    pools = []
    for spec, reasons in discarded.items():
        counts = ", ".join(f"{count} {printable(reason)}" for reason, count in sorted(reasons.items()))
        pools.append(f"{printable(spec)} {counts}")
    return [Text(f"burnt: {'; '.join(pools)}")] if pools else []


def workers_table(status: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("WORKER", "PID", "STATE", "RESTARTS", "REASON"):
        table.add_column(name)
    for worker in status["workers"]:
        number = "" if worker["shard"] is None else f" {worker['shard']}"
        if worker["maker"] is not None:
            number += f".{worker['maker']}"
        state = str(worker["state"])
        table.add_row(
            Text(f"{printable(str(worker['role']))}{number}"),
            Text("-" if worker["pid"] is None else str(worker["pid"])),
            Text(printable(state), style=_STATE_STYLES.get(state, "")),
            Text(str(worker["restarts"])),
            Text(printable(str(worker["reason"]))),
        )
    return table


def duration(seconds: float) -> str:
    """Two units are enough: "3 d 4 h", "12 min 5 s"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    while len(parts) > 1 and not parts[0][0]:
        parts.pop(0)
    return " ".join(f"{number} {unit}" for number, unit in parts[:2])
