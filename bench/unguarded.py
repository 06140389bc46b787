"""``kpcache`` without what makes it safe, to see what that costs: no checks, no ledger, no look at the
generation. As a program it is the daemon, and with the word ``shard`` or ``maker`` first, those.
Never for use.
"""

import sys
from pathlib import Path

from kpcache.worker import process


def _patch(owner: object, name: str, value: object) -> None:
    """Fails where there is nothing of that name: else all would be measured with its guards on."""
    getattr(owner, name)
    setattr(owner, name, value)


def _start_our_own() -> None:
    def command(module: str) -> list[str]:
        return [sys.executable, "-P", str(Path(__file__)), module.rpartition(".")[2]]

    _patch(process, "command", command)


def _maker() -> int:
    from kpcache.worker import maker

    _patch(maker, "check", lambda _spec, _private, _public: "")
    return maker.main()


def _shard() -> int:
    from kpcache.worker import shard

    _start_our_own()
    return shard.main()


def _daemon() -> int:
    from kpcache.cli.main import main
    from kpcache.daemon.fence import Fence
    from kpcache.daemon.ledger_file import LedgerFile
    from kpcache.daemon.ledger_store import Verdict

    _patch(LedgerFile, "record", lambda _file, _batch: Verdict(set(), []))
    _patch(Fence, "stands", lambda _fence: True)
    _start_our_own()
    return main()


if __name__ == "__main__":
    sys.exit({"maker": _maker, "shard": _shard}.get(sys.argv[1], _daemon)())
