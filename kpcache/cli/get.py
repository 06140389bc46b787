"""Take a fresh key pair.

On a terminal the pair is shown as PEM, elsewhere printed as the JSON of the answer; ``--out`` writes files.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from kpcache.cli.output import (
    UsageError,
    add_context_argument,
    as_json,
    complain,
    context_members,
    positive_seconds,
    to_stdout,
)
from kpcache.client import Client
from kpcache.core.specs import SPECS

_FORMATS = ("json", "pem", "der", "openssh", "jwk")
_LOST = "; this pair is lost: no pair is given out twice"
Answer = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", choices=SPECS, help="one of " + ", ".join(SPECS))
    parser.add_argument("--key-id", metavar="ID", help="the KMS key that encrypts the private key")
    add_context_argument(parser)
    parser.add_argument("--format", choices=_FORMATS, help="json when stdout is no terminal, else pem")
    parser.add_argument("--out", metavar="DIR", help="write files (0600, never over another) to this folder")
    parser.add_argument("--without-plaintext", action="store_true", help="only the encrypted private key")
    parser.add_argument("--count", type=_count, metavar="N", help="take N pairs; JSON is one line a pair")
    parser.add_argument(
        "--wait", type=positive_seconds, metavar="SECONDS", help="how long to wait when the pool is dry"
    )


def _count(text: str) -> int:
    if (count := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return count


def run(args: argparse.Namespace) -> int:
    """Pairs that arrived are put out before an error is told: each is gone from the daemon for good."""
    form = _form(args)
    put_out: Callable[[Answer, int], None]
    if args.out is not None:
        from kpcache.cli.files import PairFiles

        put_out = PairFiles(args.out, args.spec, form, args.count or 1).write
    elif form == "json":
        put_out = _json_lines if args.count else _json
    else:
        put_out = _keys_for(form)
    members: Answer = {"KeyPairSpec": args.spec, **context_members(args.context)}
    with Client(args.socket) as client:
        members["KeyId"] = args.key_id or client.status()["keyring"]["default_alias"]
        ask: Callable[..., Any] = client.generate_data_key_pair
        if args.without_plaintext:
            ask = client.generate_data_key_pair_without_plaintext
        for number in range(1, (args.count or 1) + 1):
            put_out(ask(**members, wait_s=args.wait), number)
    return 0


def _form(args: argparse.Namespace) -> str:
    form: str = args.format or "json"
    to_terminal = args.out is None and sys.stdout.isatty()
    if not args.format and to_terminal and not args.count:
        form = "pem"
        complain("shown as PEM; --format json also has the encrypted private key, --out DIR writes files")
    if form not in SPECS[args.spec].formats:
        raise UsageError(f"--format {form}: no tool has that form for {args.spec}")
    if form == "der" and to_terminal:
        raise UsageError("--format der: these bytes are not for a terminal; redirect them, or use --out DIR")
    if form != "json" and args.count and args.out is None:
        raise UsageError(f"--count with --format {form}: needs --out DIR, or use --format json")
    return form


def _json(answer: Answer, _number: int) -> None:
    with to_stdout(_LOST):
        print(as_json(answer))


def _json_lines(answer: Answer, _number: int) -> None:
    with to_stdout(_LOST):
        print(as_json(answer, one_line=True))


def _keys_for(form: str) -> Callable[[Answer, int], None]:
    def put_out(answer: Answer, _number: int) -> None:
        from kpcache.cli.formats import render

        pair = render(form, answer.get("PrivateKeyPlaintext"), answer["PublicKey"])
        with to_stdout(_LOST):
            sys.stdout.buffer.write(pair.public if pair.private is None else pair.private)
            if form == "pem" and pair.private is not None:
                # Two blocks in one stream are usual in PEM: a reader takes the one it looks for.
                sys.stdout.buffer.write(pair.public)

    return put_out
