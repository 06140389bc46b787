"""kill -9 of the real daemon while its keyring is being changed and used: no blob is ever lost."""

import contextlib
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

from kpcache.client.connection import ConnectionLostError
from kpcache.errors import DaemonUnreachableError
from tests.system.harness import Daemon, pools
from tests.system.test_admin import ALIAS, Admin

KILLS = 8
CHANGES_BEFORE_A_KILL = 12


class Administration(threading.Thread):
    """Rotates, makes keys and wraps under whatever is current, until the daemon is gone."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__()
        self._daemon = daemon
        self.kept: dict[bytes, tuple[str, str]] = {}  # blob: its material, and the key's ARN
        self.acknowledged = 0
        self.busy = threading.Event()

    def run(self) -> None:
        with (
            contextlib.suppress(ConnectionLostError, DaemonUnreachableError),
            Admin(self._daemon) as admin,
            self._daemon.client(reconnect_s=0) as client,
        ):
            while True:
                made = admin.call("CreateKey", Description="")["KeyMetadata"]
                for key_id in (ALIAS, made["KeyId"]):
                    admin.call("RotateKeyOnDemand", KeyId=key_id)
                    answer: dict[str, Any] = dict(client.encrypt(KeyId=key_id, Plaintext=b"private"))
                    current = client.describe_key(KeyId=key_id)["KeyMetadata"]
                    self.kept[answer["CiphertextBlob"]] = current["CurrentKeyMaterialId"], answer["KeyId"]
                    self.acknowledged += 1
                if self.acknowledged >= CHANGES_BEFORE_A_KILL:
                    self.busy.set()


def test_whatever_was_wrapped_before_a_kill_opens_after_it(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**9)
    rng = random.Random(seed)
    kept: dict[bytes, tuple[str, str]] = {}
    for kill in range(KILLS + 1):
        daemon = Daemon(tmp_path, pools())
        try:
            daemon.wait_log("serves on")
            with daemon.client() as client:
                for blob, (material, arn) in kept.items():
                    opened = client.decrypt(CiphertextBlob=blob)
                    assert opened["Plaintext"] == b"private", f"seed {seed}, kill {kill}"
                    assert (opened["KeyMaterialId"], opened["KeyId"]) == (material, arn)
            if kill == KILLS:
                assert daemon.stop() == 0
                break
            administration = Administration(daemon)
            administration.start()
            assert administration.busy.wait(60), "no change was acknowledged"
            administration.join(rng.uniform(0, 0.02))  # a moment that no step of a change is bound to
            os.kill(daemon.process.pid, signal.SIGKILL)
            administration.join()
            kept |= administration.kept
        finally:
            daemon.kill()
    assert len(kept) >= KILLS * CHANGES_BEFORE_A_KILL
