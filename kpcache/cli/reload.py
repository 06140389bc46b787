"""Have the daemon read its file of settings again, with no client dropped.

Targets, limits and whatever else can change while it runs is in force when this has returned 0; what waits
for a restart is named. A file with a mistake in it changes nothing: kpcache check-config finds it beforehand.
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
        result = daemon.call("Reload", {})
    words = f"{result['File']} was read again; changed: {', '.join(result['Changed']) or 'nothing'}"
    if result["WaitsForRestart"]:
        words += f"; not in force until the daemon is restarted: {', '.join(result['WaitsForRestart'])}"
    return tell(args, result, words)
