"""``kpcache`` whose makers repeat themselves: the first P-256 pair of each maker process is the same, always.

Run as a program it is the daemon, and with the word ``shard`` or ``maker`` first, those; a daemon that is
told ``blind`` first looks nothing up in its ledger, and one that is told ``failing`` cannot write an alarm
there while a file "full" lies beside it. Never for use.
"""

import sqlite3
import sys
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from kpcache.worker import process

SPEC = "ECC_NIST_P256"


def _planted() -> tuple[bytes, bytes]:
    key = ec.derive_private_key(4711, ec.SECP256R1())
    return (
        key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    )


def _start_our_own() -> None:
    def command(module: str) -> list[str]:
        return [sys.executable, "-P", str(Path(__file__)), module.rpartition(".")[2]]

    process.command = command


def _maker() -> int:
    from kpcache.worker import maker

    honest, planted = vars(maker)["generate"], [_planted()]

    def generate(spec: str) -> tuple[bytes, bytes]:
        pair: tuple[bytes, bytes] = planted.pop() if planted and spec == SPEC else honest(spec)
        return pair

    vars(maker)["generate"] = generate
    return maker.main()


def _shard() -> int:
    from kpcache.worker import shard

    _start_our_own()
    return shard.main()


def _failing(path: Path) -> sqlite3.Connection:
    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            if sql.startswith(("COMMIT", "INSERT INTO alarms")) and path.with_name("full").exists():
                raise sqlite3.OperationalError("database or disk is full")
            return super().execute(sql, *args)

    return sqlite3.connect(
        f"file:{path}?mode=rw", uri=True, isolation_level=None, check_same_thread=False, factory=Connection
    )


def _daemon() -> int:
    from kpcache.cli.main import main
    from kpcache.daemon.ledger_batch import Batch
    from kpcache.daemon.ledger_file import LedgerFile
    from kpcache.daemon.ledger_store import Verdict

    if sys.argv[1] == "blind":
        sys.argv.remove("blind")

        def record(_file: LedgerFile, _batch: Batch) -> Verdict:
            return Verdict(set(), [])

        vars(sys.modules[LedgerFile.__module__])["LedgerFile"].record = record
    if sys.argv[1] == "failing":
        sys.argv.remove("failing")
        defaults = LedgerFile.__init__.__kwdefaults__
        assert defaults is not None
        defaults["connect"] = _failing
    _start_our_own()
    return main()


if __name__ == "__main__":
    sys.exit({"maker": _maker, "shard": _shard}.get(sys.argv[1], _daemon)())
