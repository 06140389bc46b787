"""``kpcache`` whose ledger's disk hangs: a commit waits for 5 s once for each file "stall" that it finds, and
for as long as there is a file "hang"."""

import sys
import time
from pathlib import Path

from kpcache.cli.main import main
from kpcache.daemon.ledger_batch import Batch
from kpcache.daemon.ledger_file import LedgerFile
from kpcache.daemon.ledger_store import Verdict

STALL_S = 5.0
_record = LedgerFile.record


def _stalling(file: LedgerFile, batch: Batch) -> Verdict:
    try:
        Path(file.path.parent, "stall").unlink()
    except FileNotFoundError:
        pass
    else:
        time.sleep(STALL_S)
    while Path(file.path.parent, "hang").exists():
        time.sleep(0.05)
    return _record(file, batch)


if __name__ == "__main__":
    vars(sys.modules[LedgerFile.__module__])["LedgerFile"].record = _stalling
    sys.exit(main())
