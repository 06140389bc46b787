"""Show what the daemon lets this user do, and on which socket."""

import argparse
import os
import socket
import sys
from pathlib import Path

from kpcache.cli.output import as_json, to_stdout
from kpcache.client import Client

_CONNECT_TIMEOUT_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="what the daemon answers, for programs")


def run(args: argparse.Namespace) -> int:
    with Client(args.socket) as client:
        told = client.who_am_i()
        path = os.path.abspath(client.socket_path or "")
    admin_path = str(Path(path).with_name("admin.sock"))
    answer = {**told, "Socket": path, "AdminSocket": admin_path, "AdminSocketClosed": why_closed(admin_path)}
    if args.json:
        with to_stdout():
            print(as_json(answer))
        return 0
    from kpcache.cli.tables import console_for
    from kpcache.cli.whoami_view import whoami_view

    with to_stdout():
        console_for(sys.stdout).print(whoami_view(answer))
    return 0


def why_closed(path: str) -> str:
    """Why this process cannot connect to that socket; empty if it can."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_TIMEOUT_S)
        try:
            probe.connect(path)
        except OSError as error:
            return error.strerror or str(error)
    return ""
