"""Show the evidence of the alarm, and after a question let pairs be given out again.

The alarm says that two pairs shared a prime or a public key: treat what was issued since its cause began as
compromised, whether it is cleared or not.
"""

import argparse
import sys
from typing import Any

from kpcache.cli.keyring.access import running
from kpcache.cli.keyring.changes import tell
from kpcache.cli.output import UsageError, as_json, complain, moment, to_stdout
from kpcache.errors import KMSInvalidStateException

_WORD = "clear"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", help="the daemon's settings: its socket; admin.sock is beside it"
    )
    parser.add_argument("--yes", action="store_true", help="for programs: do not ask")
    parser.add_argument("--show", action="store_true", help="show the evidence and clear nothing")
    parser.add_argument("--json", action="store_true", help="what the daemon answers, for programs")


def run(args: argparse.Namespace) -> int:
    if not (args.yes or args.show or sys.stdin.isatty()):
        raise UsageError("clear-alarm asks: without a terminal to ask on it needs --yes, or --show")
    with running(args) as daemon:
        evidence = daemon.call("DescribeAlarm", {})
    if not evidence["Standing"]:
        raise KMSInvalidStateException("No alarm stands: there is nothing to clear.")
    if args.show and args.json:
        with to_stdout():
            print(as_json(evidence))
        return 0
    shown = evidence["Duplicates"]
    for line in told(evidence):
        complain(line)
    if args.show:
        return 0
    if not args.yes:
        print(f"Type {_WORD} to let pairs be given out again: ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip() != _WORD:
            raise UsageError("the alarm stands as before")
    # Asked anew: the answer may have taken a while, and no connection stays open for it.
    with running(args) as daemon:
        unseen = [each for each in daemon.call("DescribeAlarm", {})["Duplicates"] if each not in shown]
        if unseen:
            raise KMSInvalidStateException(
                f"{len(unseen)} more were found since these were shown: look at them first. The alarm stands."
            )
        result = daemon.call("ClearAlarm", {})
    return tell(args, result, "the alarm is cleared; pools are filled anew, and pairs given out again")


def told(evidence: dict[str, Any]) -> list[str]:
    """The evidence, line by line."""
    lines = []
    for each in evidence["Duplicates"]:
        earlier = each["Earlier"]
        lines += [
            f"a fresh {each['KeyPairSpec']} pair, SHA-256 of its public key {each['PublicKeySha256']}, found "
            f"{moment(each['FoundDate'])}, by {each['MadeBy']} of the daemon's start {each['Life']}, shares "
            "a prime or its public key with",
            f"  the pair whose public key's SHA-256 begins with {earlier['PublicKeySha256Prefix']}, recorded "
            f"{moment(earlier['RecordedDate'])}, by {earlier['MadeBy']} of start {earlier['Life']}",
            f"  the fresh one's public key (DER, base64): {as_json(each['PublicKey'])[1:-1]}",
        ]
    if evidence["Unreadable"]:
        lines.append(
            f"an earlier start left an alarm whose evidence cannot be read: {evidence['Unreadable']}"
        )
    elif not evidence["Durable"]:
        lines.append(
            "this is not in the ledger, which could not be written; the daemon's log says whether a restart "
            "would know of it"
        )
    return [
        *lines,
        "two sound pairs never do: the random source of this machine is or was broken. Find the cause first, "
        "and treat pairs issued since it began as compromised",
    ]
