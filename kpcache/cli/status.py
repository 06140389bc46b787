"""Show pools and workers."""

import argparse
import contextlib
import sys
import time

from kpcache.cli.output import as_json, to_stdout
from kpcache.client import Client

_WATCH_INTERVAL_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    parser.add_argument("--watch", action="store_true", help="again every second, until interrupted")


def run(args: argparse.Namespace) -> int:
    with Client(args.socket) as client:
        if not args.watch:
            _show(client, args.json)
            return 0
        # Ctrl-C is how one stops watching, so it is no failure.
        with contextlib.suppress(KeyboardInterrupt):
            if sys.stdout.isatty() and not args.json:
                _watch_live(client)
            while True:
                _show(client, args.json, one_line=True)
                time.sleep(_WATCH_INTERVAL_S)
    return 0


def _show(client: Client, in_json: bool, *, one_line: bool = False) -> None:
    status = client.status()
    if in_json:
        with to_stdout():
            print(as_json(status, one_line=one_line))
        return
    from kpcache.cli.tables import console_for, status_view

    with to_stdout():
        console_for(sys.stdout).print(status_view(status, client.socket_path))


def _watch_live(client: Client) -> None:
    from rich.live import Live

    from kpcache.cli.tables import console_for, status_view

    with to_stdout(), Live(console=console_for(sys.stdout), auto_refresh=False, screen=False) as live:
        while True:
            live.update(status_view(client.status(), client.socket_path), refresh=True)
            time.sleep(_WATCH_INTERVAL_S)
