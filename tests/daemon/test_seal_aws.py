"""The keyring sealed under a key that a service wraps: what the file tells of it, and who is asked when."""

import base64
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from kpcache.errors import ConfigError
from kpcache.keyring import data_key, kdf
from kpcache.keyring.data_key import WrappedKey
from kpcache.keyring.document import DocumentError
from kpcache.keyring.seal import CREDENTIAL, Sealer, Unlock
from kpcache.keyring.vault import Vault
from tests.keyrings import document_of, record
from tests.vaults import FILE, holds_a_secret, open_vault, purge, refusal, rotate, used_vault

ARN = "arn:aws:kms:eu-central-1:111122223333:key/0123abcd"


class Service:
    """A wrapper in memory; ``asked`` counts, ``refuses`` is what it says then."""

    source = "AWS KMS key k"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refuses = ""
        self.arn = ARN
        self.wrapped: dict[bytes, bytes] = {}

    def _ask(self, method: str) -> None:
        self.asked.append(method)
        if self.refuses:
            raise ConfigError(self.refuses)

    def wrap(self, key: bytes) -> WrappedKey:
        self._ask("wrap")
        blob = os.urandom(152)
        self.wrapped[blob] = key
        return WrappedKey(blob, self.arn)

    def unwrap(self, blob: bytes) -> bytes:
        self._ask("unwrap")
        if blob not in self.wrapped:
            raise ConfigError("it is no blob of ours")
        return self.wrapped[blob]


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def unlock(service: Service) -> Unlock:
    return Unlock("aws-kms", wrapper=service)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


def test_the_service_is_asked_once_a_start_and_by_no_change(
    folder: Path, service: Service, unlock: Unlock
) -> None:
    vault = used_vault(folder, unlock=unlock)
    assert service.asked == ["wrap"]
    assert (vault.is_sealed, holds_a_secret(folder, vault.content)) == ("aws-kms", [])
    told = json.loads((folder / FILE).read_bytes())
    vault = open_vault(folder, "never", unlock=unlock)
    assert service.asked == ["wrap", "unwrap"]
    service.refuses = "gone"
    vault.change(rotate)
    vault.change(purge, destroys=True)
    assert json.loads((folder / FILE).read_bytes())["kdf"] == told["kdf"]
    assert json.loads((folder / FILE).read_bytes())["nonce"] != told["nonce"]
    service.refuses = ""
    assert open_vault(folder, "never", unlock=unlock).content == vault.content


def test_the_file_tells_the_wrapped_key_and_under_which_and_not_the_key(
    folder: Path, service: Service, unlock: Unlock
) -> None:
    open_vault(folder, unlock=unlock)
    file = json.loads((folder / FILE).read_bytes())
    [(blob, key)] = service.wrapped.items()
    assert (file["version"], file["unlock"]) == (1, "aws-kms")
    assert file["kdf"] == {"name": "aws-kms", "wrapped": base64.b64encode(blob).decode(), "key_arn": ARN}
    for shape in (key, base64.b64encode(key), key.hex().encode()):
        assert shape not in (folder / FILE).read_bytes()


def test_the_key_is_the_kernels_bytes(service: Service, unlock: Unlock) -> None:
    drawn: list[bytes] = []

    def urandom(size: int) -> bytes:
        drawn.append(os.urandom(size))
        return drawn[-1]

    Sealer(unlock, urandom).seal(b"document")
    assert list(service.wrapped.values()) == drawn[:1]
    assert [len(item) for item in drawn] == [32, 12]


def test_an_imported_keyring_is_sealed_from_the_start(folder: Path, unlock: Unlock) -> None:
    exported = document_of(record(), record())
    Vault.import_first(folder, exported, unlock=unlock)
    assert holds_a_secret(folder, exported) == []
    assert open_vault(folder, "never", unlock=unlock).content.keys == exported.keys


def test_a_plain_file_is_sealed_at_the_next_start_and_stays_whole_where_it_cannot_be(
    folder: Path, service: Service, unlock: Unlock, caplog: pytest.LogCaptureFixture
) -> None:
    plain = used_vault(folder).content
    before = (folder / FILE).read_bytes()
    service.refuses = "no answer"
    assert refusal(folder, "never", unlock=unlock) == "no answer"
    assert (folder / FILE).read_bytes() == before
    service.refuses = ""
    caplog.set_level(logging.INFO, "kpcache")
    assert open_vault(folder, "never", unlock=unlock).content == plain
    assert "was plain and is now sealed (keyring.unlock = aws-kms)" in caplog.text
    assert (holds_a_secret(folder, plain), service.asked[1:]) == ([], ["wrap"])


def test_a_service_that_refuses_leaves_the_file_and_the_message_names_file_and_key(
    folder: Path, service: Service, unlock: Unlock
) -> None:
    open_vault(folder, unlock=unlock)
    before = (folder / FILE).read_bytes()
    service.refuses = "no answer"
    assert refusal(folder, unlock=unlock) == f"{folder / FILE}: no answer (it was sealed under {ARN})"
    assert (folder / FILE).read_bytes() == before


def test_where_no_first_key_is_wrapped_nothing_is_made(
    folder: Path, service: Service, unlock: Unlock
) -> None:
    service.refuses = "no answer"
    assert refusal(folder, unlock=unlock) == "no answer"
    assert os.listdir(folder) == []


@pytest.mark.parametrize("arn", ["", "x" * 2049])
def test_an_answer_that_no_start_would_read_again_is_not_written(
    folder: Path, service: Service, unlock: Unlock, arn: str
) -> None:
    service.arn = arn
    assert "AWS KMS key k answers what kpcache cannot use: kdf.key_arn" in refusal(folder, unlock=unlock)
    assert os.listdir(folder) == []


def test_another_mode_is_refused_with_the_one_that_opens_it(
    folder: Path, tmp_path: Path, unlock: Unlock
) -> None:
    used_vault(folder, unlock=unlock)
    (tmp_path / CREDENTIAL).write_bytes(os.urandom(32))
    credential = Unlock("credential", credentials=tmp_path)
    for other in (Unlock("file"), credential):
        told = refusal(folder, unlock=other)
        assert f'it is sealed and opens with keyring.unlock = "aws-kms:KEY", not "{other.mode}"' in told


def test_a_file_under_another_mode_is_refused_before_anybody_is_asked(
    folder: Path, tmp_path: Path, service: Service, unlock: Unlock
) -> None:
    (tmp_path / CREDENTIAL).write_bytes(os.urandom(32))
    used_vault(folder, unlock=Unlock("credential", credentials=tmp_path))
    assert 'opens with keyring.unlock = "credential", not "aws-kms:KEY"' in refusal(folder, unlock=unlock)
    assert service.asked == []


# --- tampering


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


HOSTILE: list[Any] = [
    None,
    [],
    {},
    {"name": "hkdf-sha256", "salt": _base64(bytes(16))},
    {"name": None},
    {"more": 1},
    {"salt": _base64(bytes(16))},
    {"wrapped": None},
    {"wrapped": ""},
    {"wrapped": "%"},
    {"wrapped": _base64(bytes(6145))},
    {"key_arn": None},
    {"key_arn": ""},
    {"key_arn": "x" * 2049},
    {"key_arn": 7},
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_fields_that_are_not_ours_are_refused_before_anybody_is_asked(
    service: Service, unlock: Unlock, hostile: Any
) -> None:
    file = json.loads(Sealer(unlock, os.urandom).seal(b"a document"))
    file["kdf"] = file["kdf"] | hostile if hostile else hostile
    with pytest.raises(DocumentError):
        Sealer(unlock, os.urandom).open(json.dumps(file).encode())
    assert service.asked == ["wrap"]


def _flip(text: str, at: int) -> str:
    """Another character of base64 and of an ARN there."""
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


@pytest.mark.parametrize("field", ["wrapped", "key_arn"])
def test_the_seal_covers_each_field(service: Service, unlock: Unlock, field: str) -> None:
    """Also where the service would open it: the same key wrapped once more is another file."""
    sealed = Sealer(unlock, os.urandom).seal(b"a document, of any kind")
    assert Sealer(unlock, os.urandom).open(sealed) == (b"a document, of any kind", True)
    file = json.loads(sealed)
    told = file["kdf"]
    again = [_flip(told[field], at) for at in range(len(told[field]) - 2)]
    if field == "wrapped":
        service.wrapped |= {base64.b64decode(text): key for text in again for key in service.wrapped.values()}
    for text in again:
        with pytest.raises(ConfigError, match="it does not open with AWS KMS key k"):
            Sealer(unlock, os.urandom).open(json.dumps({**file, "kdf": {**told, field: text}}).encode())


def test_the_name_of_the_mode_is_covered(tmp_path: Path, service: Service, unlock: Unlock) -> None:
    """What AWS KMS opens is opened by no other mode, whatever the file is made to say."""
    file = json.loads(Sealer(unlock, os.urandom).seal(b"a document"))
    (tmp_path / CREDENTIAL).write_bytes(os.urandom(32))
    credential = Sealer(Unlock("credential", credentials=tmp_path), os.urandom)
    with pytest.raises(DocumentError):
        credential.open(json.dumps({**file, "unlock": "credential"}).encode())
    with pytest.raises(DocumentError):
        kdf.derive(file["kdf"], b"secret")
    assert service.asked == ["wrap"]


def test_what_opens_and_is_no_key_is_refused(service: Service, unlock: Unlock) -> None:
    sealed = Sealer(unlock, os.urandom).seal(b"a document")
    for blob in service.wrapped:
        service.wrapped[blob] = bytes(16)
    with pytest.raises(DocumentError, match="does not have 32 bytes"):
        Sealer(unlock, os.urandom).open(sealed)


def test_the_arn_of_another_hand_cannot_act_on_a_terminal(service: Service) -> None:
    told = {"name": data_key.NAME, "wrapped": _base64(b"blob"), "key_arn": "arn\n\x1b[31m"}
    with pytest.raises(ConfigError) as caught:
        data_key.opened(told, service)
    assert caught.value.message.isprintable()


def test_nothing_secret_is_shown(service: Service, unlock: Unlock) -> None:
    sealer = Sealer(unlock, os.urandom)
    sealer.seal(b"a document")
    [key] = service.wrapped.values()
    shown = f"{unlock!r} {sealer!r} {vars(sealer)}"
    assert repr(key)[2:-1] not in shown
    assert _base64(key) not in shown
