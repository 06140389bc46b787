"""The runtime folder (``daemon.runtime_dir``): for what must outlive this process and no reboot."""

import stat
from pathlib import Path

from kpcache.errors import ConfigError
from kpcache.keyring.files import check_owner_and_mode, make_folder, naming


def prepare_runtime_folder(folder: Path) -> None:
    """Make it, 0700, or check that the one that is there is ours alone. May be called again.

    Raises ``ConfigError`` with the cure.
    """
    with naming(folder):
        if not folder.is_symlink():  # whoever can exchange a link could show us another folder each time
            make_folder(folder)
        status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"{folder}: is not a folder, and no link is followed; remove it")
    check_owner_and_mode(status, folder, forbidden=0o077, cure="go-rwx")
