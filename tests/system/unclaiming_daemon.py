"""``kpcache`` that takes a segment for claimed without a row in its ledger, to show that the tests would
notice: never for use."""

import sys

from kpcache.cli.main import main
from kpcache.daemon.ledger_file import LedgerFile


def _claim(_file: LedgerFile, _name: str) -> bool:
    return True


if __name__ == "__main__":
    vars(sys.modules[LedgerFile.__module__])["LedgerFile"].claim = _claim
    sys.exit(main())
