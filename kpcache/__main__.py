"""``python -m kpcache`` is the ``kpcache`` command."""

import sys

from kpcache.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
