"""Arguments in, an exit code out: 0 done, 1 refused, 2 wrong usage or settings, 3 no daemon, 4 try again."""

import argparse
import os
import sys
from collections.abc import Sequence

from kpcache import __version__
from kpcache.cli import (
    check_config,
    clear_alarm,
    decrypt,
    get,
    keyring,
    ledger,
    plan,
    quiesce,
    reload,
    resume,
    serve,
    status,
    wait,
    whoami,
)
from kpcache.cli.output import UsageError, complain, drop, in_words
from kpcache.errors import KpcacheError

_COMMANDS = {
    "serve": serve,
    "get": get,
    "decrypt": decrypt,
    "status": status,
    "wait": wait,
    "whoami": whoami,
    "keyring": keyring,
    "ledger": ledger,
    "clear-alarm": clear_alarm,
    "quiesce": quiesce,
    "resume": resume,
    "reload": reload,
    "plan": plan,
    "check-config": check_config,
}
# What a shell shows for a program that SIGINT or SIGPIPE ended.
_INTERRUPTED, _NO_READER = 130, 141


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="kpcache",
        description="Fresh, never-used key pairs, made ahead of need.",
        epilog="Exit codes: 0 done, 1 refused, 2 wrong usage or settings, 3 no daemon there, 4 try again.",
    )
    parser.add_argument("--version", action="version", version=f"kpcache {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in _COMMANDS.items():
        summary = (module.__doc__ or "").splitlines()[0]
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument("--socket", metavar="PATH", help="the daemon's socket")
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. argparse ends the process itself (2) when the arguments are wrong."""
    if sys.stdout is None:  # closed, as by >&-: no socket of ours may be opened in its place
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    args = build_parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except UsageError as error:
        complain(str(error))
        return 2
    except KpcacheError as error:
        complain(in_words(error))
        return error.exit_code
    except BrokenPipeError:
        drop(sys.stdout)
        return _NO_READER
    except KeyboardInterrupt:
        return _INTERRUPTED
    return code
