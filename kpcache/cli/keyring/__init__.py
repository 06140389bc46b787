"""Create and look after the keys that encrypt what is given out: aliases, rotation, deletion, exports.

- ``access``    the keyring of the running daemon, or its file while no daemon runs.
- ``changes``   one function a command that changes keys or aliases; ``purge``, the one that destroys.
- ``show``      list, describe.
- ``copies``    export, import; ``age`` encrypts and opens them, ``secret_input`` reads what that takes.
"""

import argparse
from collections.abc import Callable

from kpcache.cli.keyring import changes, copies, purge, show

Run = Callable[[argparse.Namespace], int]
_KEY_HELP = "a key's id or ARN, alias/NAME, or an alias's ARN"
_ALIAS_HELP = "alias/ and letters, digits, / _ -"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    create = _command(commands, "create", changes.create, "Make a key")
    create.add_argument("--alias", metavar="alias/NAME", help="a name for it")
    create.add_argument("--description", metavar="TEXT", help="what it is for")
    create.add_argument("--tag", action="append", default=[], metavar="K=V", help="once for each tag")
    _command(commands, "list", show.list_keys, "Show all keys; also while no daemon runs")
    _key_command(
        commands, "describe", show.describe, "Show one key with its materials; also while no daemon runs"
    )
    _add_alias_commands(commands)
    _key_command(
        commands, "rotate", changes.rotate, "Give a key new material; what was encrypted before still opens"
    )
    _key_command(
        commands, "disable", changes.disable, "Let a key neither encrypt nor open until it is enabled"
    )
    _key_command(commands, "enable", changes.enable, "Let a disabled key be used again")
    delete = _key_command(
        commands,
        "delete",
        changes.delete,
        "Disable a key for good, to be purged after some days; destroys nothing",
    )
    when = delete.add_mutually_exclusive_group()
    when.add_argument(
        "--days", type=_waiting_days, metavar="N", help="how many days it cannot be purged: 7 to 30 (30)"
    )
    when.add_argument("--cancel", action="store_true", help="keep the key after all; enable it then")
    destroy = _key_command(
        commands, "purge", purge.purge, "Destroy a key whose days are over, and all that it encrypted"
    )
    destroy.add_argument("--yes-destroy", metavar="KEY-ID", help="for programs: the key's id once more")
    tag = _key_command(commands, "tag", changes.tag, "Give a key tags")
    tag.add_argument("tags", nargs="+", metavar="K=V")
    untag = _key_command(commands, "untag", changes.untag, "Take tags from a key")
    untag.add_argument("tag_keys", nargs="+", metavar="K")
    _add_copy_commands(commands)


def run(args: argparse.Namespace) -> int:
    code: int = args.run_keyring(args)
    return code


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, run_it: Run, summary: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=summary, description=summary + ".")
    # SUPPRESS: without it the default would replace what was given before the command's name.
    command.add_argument(
        "--socket",
        default=argparse.SUPPRESS,
        metavar="PATH",
        help="the daemon's socket; admin.sock is beside it",
    )
    command.add_argument(
        "--config", metavar="FILE", help="the daemon's settings: its socket, its state folder"
    )
    command.add_argument("--json", action="store_true", help="the result with KMS's members, for programs")
    command.set_defaults(run_keyring=run_it)
    return command


def _key_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, run_it: Run, summary: str
) -> argparse.ArgumentParser:
    command = _command(commands, name, run_it, summary)
    command.add_argument("key", metavar="KEY", help=_KEY_HELP)
    return command


def _add_alias_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "Create, move or delete a key's further names"
    alias = commands.add_parser("alias", help=summary, description=summary + ".")
    kinds = alias.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, run_it, words in (
        ("create", changes.alias_create, "Give a key one more name"),
        ("move", changes.alias_move, "Let a name that is there mean another key"),
        ("delete", changes.alias_delete, "Remove a name; the key stays"),
    ):
        command = _command(kinds, name, run_it, words)
        command.add_argument("alias", metavar="NAME", help=_ALIAS_HELP)
        if name != "delete":
            command.add_argument("key", metavar="KEY", help=_KEY_HELP)


def _add_copy_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = _command(
        commands, "export", copies.export, "Write all keys to an encrypted file; also while no daemon runs"
    )
    export.add_argument(
        "--out",
        metavar="FILE",
        help="never over another; - for stdout (kpcache-keyring-TIME.age in this folder)",
    )
    export_under = export.add_mutually_exclusive_group()
    _add_passphrase_argument(export_under)
    export_under.add_argument(
        "--recipient",
        action="append",
        metavar="age1…",
        help="encrypt to the holder of an age identity; repeatable",
    )
    take = _command(
        commands,
        "import",
        copies.import_,
        "Add what an export has and this keyring lacks; also while no daemon runs",
    )
    take.add_argument("file", metavar="FILE", help="an export; - for stdin")
    open_with = take.add_mutually_exclusive_group()
    _add_passphrase_argument(open_with)
    open_with.add_argument("--identity", metavar="F", help="a file with AGE-SECRET-KEY-1…")


def _add_passphrase_argument(group: "argparse._MutuallyExclusiveGroup") -> None:
    group.add_argument(
        "--passphrase-file", metavar="F", help="a file with one line; without it a terminal is asked"
    )


def _waiting_days(text: str) -> int:
    if not text.isdecimal() or not 7 <= int(text) <= 30:
        raise argparse.ArgumentTypeError(f"{text}: must be from 7 to 30 days")
    return int(text)
