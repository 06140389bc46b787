"""Make this machine fit for a snapshot: burn all pairs and end what makes them, until kpcache resume.

When this has returned 0, no pair is left that the daemon could give out, and no process that makes one;
requests for pairs are refused as ones that can be repeated (``ThrottlingException``, ``quiesced``), all
others are answered.
"""

import argparse

from kpcache.cli.keyring.access import running
from kpcache.cli.keyring.changes import tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", help="the daemon's settings: its socket; admin.sock is beside it"
    )
    parser.add_argument("--json", action="store_true", help="what the daemon answers, for programs")


def run(args: argparse.Namespace) -> int:
    with running(args) as daemon:
        result = daemon.call("Quiesce", {})
    return tell(
        args,
        result,
        f"{result['Burnt']} pairs burnt, and none is made or given out any more: take the snapshot, then run "
        "kpcache resume, here and in each copy",
    )
