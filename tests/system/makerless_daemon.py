"""``kpcache`` whose makers never come up, and which waits for them for good. Never for use."""

import math
import sys

from kpcache.cli.main import main
from kpcache.daemon import main as daemon
from kpcache.daemon.supervisor import Supervisor
from kpcache.daemon.worker_record import Worker


def _start_none(_supervisor: Supervisor, maker: Worker) -> None:
    maker.start()


if __name__ == "__main__":
    vars(daemon)["READY_TIMEOUT_S"] = math.inf
    vars(sys.modules[Supervisor.__module__])["Supervisor"]._start_maker = _start_none
    sys.exit(main())
