"""Decrypt a private key that was encrypted with a pair.

Reads the raw blob or the JSON that ``get`` printed, and writes the raw bytes (DER PKCS#8) to stdout.
"""

import argparse
import base64
import json
import sys

from kpcache.cli.output import UsageError, add_context_argument, context_members, to_stdout
from kpcache.client import Client

# Several times the largest answer in JSON (RSA_4096: 12 kB).
_MAX_FILE_BYTES = 65_536
_BLOB_MEMBERS = ("PrivateKeyCiphertextBlob", "CiphertextBlob")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_context_argument(parser)
    parser.add_argument("file", metavar="FILE", help="a blob, or the JSON of one answer; - for stdin")


def run(args: argparse.Namespace) -> int:
    if sys.stdout.isatty():
        raise UsageError("the private key is bytes, not for a terminal; redirect it, as in: > key.der")
    context = context_members(args.context)
    blob = blob_in(_read(args.file), args.file)
    with Client(args.socket) as client:
        private = client.decrypt(CiphertextBlob=blob, **context)["Plaintext"]
    with to_stdout():
        sys.stdout.buffer.write(private)
    return 0


def _read(name: str) -> bytes:
    try:
        if name == "-":
            data = sys.stdin.buffer.read(_MAX_FILE_BYTES + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from error
    if not data or len(data) > _MAX_FILE_BYTES:
        raise UsageError(f"{name}: is {'empty' if not data else 'too large'}: neither a blob nor an answer")
    return data


def blob_in(data: bytes, name: str) -> bytes:
    """The blob in ``data``: itself, or in JSON. A blob starts with a byte that is no ``{`` or space."""
    if not data.lstrip().startswith(b"{"):
        return data
    try:
        answer = json.loads(data)
    except ValueError as error:
        raise UsageError(
            f"{name}: not the JSON of one answer ({error}); pass one answer at a time"
        ) from error
    text = next((answer[member] for member in _BLOB_MEMBERS if member in answer), "")
    try:
        return base64.b64decode(text or "-", validate=True)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: has no {_BLOB_MEMBERS[0]} in base64") from error
