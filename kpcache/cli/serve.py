"""Run the daemon."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kpcache.core.settings import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="settings (TOML); without it, embedded defaults")


def run(args: argparse.Namespace) -> int:
    from kpcache.worker.wiping import start_again_to_wipe

    # Before the settings are read: they may come from a pipe, which can be read once.
    start_again_to_wipe()
    from kpcache.cli.accounts import with_numbers
    from kpcache.cli.config_file import load_file
    from kpcache.cli.reporters import LiveReporter, PlainReporter

    config = with_numbers(load_file(args.config, socket=args.socket), args.config)
    file = os.path.abspath(args.config) if args.config else ""
    socket = os.path.abspath(args.socket) if args.socket else None
    # The settings come first: a wrong one is told before trio and the rest are loaded.
    from kpcache.daemon.main import run as run_daemon
    from kpcache.daemon.reload import Source

    def read_again() -> "Config":
        return with_numbers(load_file(file, socket=socket, again=True), file)

    source = Source(file, read_again) if file else None
    reporter = LiveReporter(sys.stderr) if sys.stderr.isatty() else PlainReporter(sys.stderr)
    return run_daemon(config, reporter, source)
