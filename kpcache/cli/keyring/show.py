"""The commands that show keys and change nothing. They work while no daemon runs, too."""

import argparse
import sys

from kpcache.cli.keyring.access import all_of, running_or_stopped
from kpcache.cli.output import as_json, to_stdout


def list_keys(args: argparse.Namespace) -> int:
    """For programs, KMS's ListKeys and ListAliases in one; for people, a table."""
    with running_or_stopped(args) as keyring:
        keys = all_of(keyring, "ListKeys", {}, "Keys")
        aliases = all_of(keyring, "ListAliases", {}, "Aliases")
        if args.json:
            metadata = []
        else:
            metadata = [keyring.call("DescribeKey", {"KeyId": key["KeyId"]})["KeyMetadata"] for key in keys]
    if args.json:
        with to_stdout():
            print(as_json({"Keys": keys, "Aliases": aliases}))
        return 0
    from kpcache.cli.keyring.tables import keys_table
    from kpcache.cli.tables import console_for

    with to_stdout():
        console_for(sys.stdout).print(keys_table(metadata, aliases))
    return 0


def describe(args: argparse.Namespace) -> int:
    """KMS's DescribeKey, ListAliases, ListResourceTags and ListKeyRotations in one."""
    with running_or_stopped(args) as keyring:
        metadata = keyring.call("DescribeKey", {"KeyId": args.key})["KeyMetadata"]
        # By its id from here on: an alias could be moved between two requests.
        key = {"KeyId": metadata["KeyId"]}
        everything = {
            "KeyMetadata": metadata,
            "Aliases": all_of(keyring, "ListAliases", key, "Aliases"),
            "Tags": all_of(keyring, "ListResourceTags", key, "Tags"),
            "Rotations": all_of(
                keyring, "ListKeyRotations", {**key, "IncludeKeyMaterial": "ALL_KEY_MATERIAL"}, "Rotations"
            ),
        }
    if args.json:
        with to_stdout():
            print(as_json(everything))
        return 0
    from kpcache.cli.keyring.tables import key_view
    from kpcache.cli.tables import console_for

    with to_stdout():
        console_for(sys.stdout).print(key_view(everything))
    return 0
