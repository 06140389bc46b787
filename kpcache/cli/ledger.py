"""Look after the ledger of what was made."""

import argparse

from kpcache.cli.keyring.access import running
from kpcache.cli.keyring.changes import tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    summary = "Say that it is known why the ledger is missing, another, or older than it was"
    command = commands.add_parser("acknowledge", help=summary, description=summary + ".")
    # SUPPRESS: without it the default would replace what was given before the command's name.
    command.add_argument(
        "--socket",
        default=argparse.SUPPRESS,
        metavar="PATH",
        help="the daemon's socket; admin.sock is beside it",
    )
    command.add_argument("--config", metavar="FILE", help="the daemon's settings: its socket")
    command.add_argument("--json", action="store_true", help="what the daemon answers, for programs")


def run(args: argparse.Namespace) -> int:
    """``acknowledge``, the one command there is."""
    with running(args) as daemon:
        result = daemon.call("AcknowledgeLedger", {})
    return tell(args, result, f"acknowledged, and shown no more: {result['Acknowledged']}")
