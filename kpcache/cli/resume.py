"""Make pairs and give them out again, after kpcache quiesce."""

import argparse

from kpcache.cli import quiesce
from kpcache.cli.keyring.access import running
from kpcache.cli.keyring.changes import tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    quiesce.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    with running(args) as daemon:
        result = daemon.call("Resume", {})
    return tell(args, result, "pairs are made and given out again")
