"""Check a file of settings, and print those that would be in force."""

import argparse

from kpcache.cli.output import to_stdout


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE")


def run(args: argparse.Namespace) -> int:
    import tomli_w

    from kpcache.cli.accounts import with_numbers
    from kpcache.cli.config_file import load_file
    from kpcache.core.config import to_mapping

    config = load_file(args.file, socket=args.socket)
    with_numbers(config, args.file)  # whether its users and groups are there; what is printed keeps names
    with to_stdout():
        print(tomli_w.dumps(to_mapping(config)), end="")
    return 0
