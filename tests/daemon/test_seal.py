"""The keyring sealed at rest: no secret of it in the folder, opened by one secret only, tampering refused."""

import base64
import json
import logging
import os
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from kpcache.errors import ConfigError
from kpcache.keyring import changes, document, kdf, seal
from kpcache.keyring.document import DocumentError
from kpcache.keyring.seal import CREDENTIAL, Sealer, Unlock
from kpcache.keyring.vault import Vault
from tests.keyrings import ALIAS, document_of, record
from tests.vaults import (
    FILE,
    MARK,
    OLD,
    PREVIOUS,
    TEMPORARY,
    holds_a_secret,
    open_vault,
    purge,
    refusal,
    rotate,
    used_vault,
)

PASSPHRASE = b"correct horse battery staple"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def credential(tmp_path: Path) -> Unlock:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / CREDENTIAL).write_bytes(os.urandom(32))
    return Unlock.from_settings("credential", "", {"CREDENTIALS_DIRECTORY": str(credentials)})


@pytest.fixture
def passphrase(tmp_path: Path) -> Unlock:
    file = tmp_path / "pass phrase"
    file.write_bytes(PASSPHRASE + b"\n")
    file.chmod(0o600)
    return Unlock.from_settings("passphrase-file", str(file), {})


@pytest.fixture(params=["credential", "passphrase"])
def unlock(request: pytest.FixtureRequest) -> Unlock:
    made: Unlock = request.getfixturevalue(request.param)
    return made


def secret_file(unlock: Unlock) -> Path:
    """Where the secret of this mode lies."""
    if unlock.credentials is not None:
        return unlock.credentials / CREDENTIAL
    assert unlock.passphrase_file is not None
    return unlock.passphrase_file


def test_a_sealed_keyring_lives_as_a_plain_one_does_and_shows_nothing(folder: Path, unlock: Unlock) -> None:
    vault = used_vault(folder, unlock=unlock)
    old = vault.content
    assert (vault.is_sealed, holds_a_secret(folder, old)) == (unlock.mode, [])
    vault.change(rotate)
    assert open_vault(folder, "never", unlock=unlock).content == vault.content
    vault.change(purge, destroys=True)
    assert open_vault(folder, "never", unlock=unlock).content == vault.content
    for path in folder.iterdir():
        assert vault.content.keys[0].key_id.encode() not in path.read_bytes()


def test_a_plain_one_is_said_to_be_one(folder: Path) -> None:
    assert used_vault(folder).is_sealed == "file"


def test_an_imported_keyring_is_sealed_from_the_start(folder: Path, credential: Unlock) -> None:
    exported = document_of(record(), record())
    Vault.import_first(folder, exported, unlock=credential)
    assert holds_a_secret(folder, exported) == []
    assert open_vault(folder, "never", unlock=credential).content.keys == exported.keys


def test_each_write_has_a_nonce_of_its_own_and_the_key_is_derived_once_a_start(
    folder: Path, passphrase: Unlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    derived: list[object] = []
    real_derive = kdf.derive

    def derive(parameters: object, secret: bytes) -> bytes:
        derived.append(parameters)
        return real_derive(parameters, secret)

    monkeypatch.setattr(kdf, "derive", derive)
    vault = used_vault(folder, unlock=passphrase)
    nonces = {json.loads((folder / FILE).read_bytes())["nonce"]}
    for n in range(5):
        vault.change(lambda content, n=n: changes.create_alias(content, f"alias/{n}", ALIAS))  # type: ignore[misc]
        nonces.add(json.loads((folder / FILE).read_bytes())["nonce"])
    assert len(nonces) == 6
    assert len(derived) == 1
    open_vault(folder, "never", unlock=passphrase).change(rotate)
    assert derived[1:] == [json.loads((folder / FILE).read_bytes())["kdf"]]


def test_salt_and_nonce_are_the_kernels_bytes(credential: Unlock) -> None:
    drawn: list[bytes] = []

    def urandom(size: int) -> bytes:
        drawn.append(os.urandom(size))
        return drawn[-1]

    file = json.loads(Sealer(credential, urandom).seal(b"document"))
    told = [file["kdf"]["salt"], file["nonce"]]
    assert told == [base64.b64encode(item).decode() for item in drawn]


def test_a_sealed_file_can_be_opened_by_what_is_documented_alone(credential: Unlock) -> None:
    """Each field is covered, also those that are checked by themselves."""
    file = json.loads(Sealer(credential, os.urandom).seal(b"document"))
    ciphertext = base64.b64decode(file.pop("ciphertext"))
    covered = json.dumps(file, sort_keys=True, separators=(",", ":")).encode("ascii")
    assert set(file) == {"format", "version", "unlock", "kdf", "nonce"}
    cipher = AESGCMSIV(kdf.derive(file["kdf"], secret_file(credential).read_bytes()))
    assert cipher.decrypt(base64.b64decode(file["nonce"]), ciphertext, covered) == b"document"


# --- a plain file that could be sealed


def test_a_plain_file_is_sealed_at_the_next_start_and_no_plain_copy_stays(
    folder: Path, unlock: Unlock, caplog: pytest.LogCaptureFixture
) -> None:
    plain = used_vault(folder).content
    for name in (TEMPORARY, OLD):
        (folder / name).write_bytes((folder / FILE).read_bytes())
    caplog.set_level(logging.INFO, "kpcache")
    caplog.clear()
    assert open_vault(folder, "never", unlock=unlock).content == plain
    assert holds_a_secret(folder, plain) == []
    assert (folder / PREVIOUS).exists()
    [line] = caplog.messages
    assert f"{folder / FILE} was plain and is now sealed (keyring.unlock = {unlock.mode})" in line
    open_vault(folder, "never", unlock=unlock)
    assert caplog.messages == [line]


def test_a_plain_file_stays_whole_where_it_cannot_be_sealed(folder: Path, credential: Unlock) -> None:
    plain = used_vault(folder).content
    before = (folder / FILE).read_bytes()
    secret_file(credential).unlink()
    assert CREDENTIAL in refusal(folder, "never", unlock=credential)
    assert (folder / FILE).read_bytes() == before
    assert open_vault(folder).content == plain


# --- a plain file where a sealed one was


@pytest.mark.parametrize("was_plain", [False, True], ids=["sealed from the first", "sealed later"])
def test_a_plain_file_in_the_place_of_a_sealed_one_is_neither_used_nor_sealed(
    folder: Path, credential: Unlock, was_plain: bool
) -> None:
    """Whoever can write there and lacks the secret could else give the daemon keys that they know."""
    if was_plain:
        used_vault(folder)
    open_vault(folder, unlock=credential)
    planted = document.encode(document_of(record()))
    (folder / FILE).write_bytes(planted)
    for unlock in (credential, Unlock()):
        told = refusal(folder, unlock=unlock)
        assert "plain, yet the keyring of this folder is sealed" in told
        with pytest.raises(ConfigError, match="plain, yet"):
            Vault.at_rest(folder, unlock=unlock)
    assert (folder / FILE).read_bytes() == planted
    subprocess.run(["/bin/sh", "-c", told.partition("run: ")[2]], check=True)
    assert document.encode(open_vault(folder, unlock=credential).content) == planted


def test_a_keyring_that_was_sealed_before_marks_said_so_is_marked_by_the_next_start(
    folder: Path, credential: Unlock
) -> None:
    open_vault(folder, unlock=credential)
    sealed = (folder / MARK).read_bytes()
    open_vault(folder, unlock=credential)
    assert (folder / MARK).read_bytes() == sealed
    (folder / MARK).write_text("keyring.json was made in this folder.\n")
    open_vault(folder, unlock=credential)
    assert (folder / MARK).read_bytes() == sealed
    assert sorted(os.listdir(folder)) == [FILE, MARK]


# --- while no daemon runs


def test_a_command_leaves_the_file_as_it_lies(folder: Path, credential: Unlock) -> None:
    plain = used_vault(folder).content
    before = {path.name: (path.stat().st_ino, path.read_bytes()) for path in folder.iterdir()}
    vault = Vault.at_rest(folder, unlock=credential)
    assert vault.content == plain
    assert {path.name: (path.stat().st_ino, path.read_bytes()) for path in folder.iterdir()} == before
    vault.change(lambda content: changes.mark_exported(content, content.revision))
    assert document.decode((folder / FILE).read_bytes()) == vault.content, "still plain"
    open_vault(folder, unlock=credential)
    vault = Vault.at_rest(folder, unlock=credential)
    vault.change(rotate)
    assert holds_a_secret(folder, vault.content) == []
    assert open_vault(folder, unlock=credential).content == vault.content


# --- another secret, another mode


def test_another_secret_is_refused_and_the_file_stays(folder: Path, unlock: Unlock) -> None:
    vault = used_vault(folder, unlock=unlock)
    before = (folder / FILE).read_bytes()
    right = secret_file(unlock).read_bytes()
    secret_file(unlock).write_bytes(right.swapcase().rstrip() + b"0")
    told = refusal(folder, unlock=unlock)
    assert f"{folder / FILE}: it does not open with" in told
    assert "give the secret that it was sealed with" in told
    assert (folder / FILE).read_bytes() == before
    secret_file(unlock).write_bytes(right)
    assert open_vault(folder, unlock=unlock).content == vault.content


def test_another_mode_is_refused_with_the_one_that_opens_it(
    folder: Path, credential: Unlock, passphrase: Unlock
) -> None:
    used_vault(folder, unlock=credential)
    before = (folder / FILE).read_bytes()
    for other in (Unlock("file"), passphrase):
        told = refusal(folder, unlock=other)
        assert f'it is sealed and opens with keyring.unlock = "credential", not "{other.mode}"' in told
        assert "kpcache keyring export" in told
    assert (folder / FILE).read_bytes() == before


# --- tampering


def _flips(value: Any) -> list[Any]:
    """The value changed in each of its parts, as little as can be."""
    if isinstance(value, dict):
        return [{**value, key: flip} for key in value for flip in _flips(value[key])] + [
            {key: kept for key, kept in value.items() if key != gone} for gone in value
        ]
    if isinstance(value, int):
        return [value - 1, value + 1, float(value), str(value), True, None, 2**40]
    flips = [value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :] for at in range(0, len(value), 7)]
    return [*flips, value + "=", value[:-1] + chr(ord(value[-1]) ^ 2), value[1:], "", None, 7]


@pytest.mark.parametrize("mode", ["credential", "passphrase"])
def test_every_field_is_covered(mode: str, request: pytest.FixtureRequest) -> None:
    unlock: Unlock = request.getfixturevalue(mode)
    sealed = Sealer(unlock, os.urandom).seal(b"a document, of any kind")
    sealer = Sealer(unlock, os.urandom)
    assert sealer.open(sealed) == (b"a document, of any kind", True)
    file = json.loads(sealed)
    flips = [flip for flip in _flips(file) if flip.get("format") == seal.FORMAT]
    assert len(flips) > 50
    for flip in [*flips, {**file, "more": 1}]:
        with pytest.raises((DocumentError, ConfigError)):
            sealer.open(json.dumps(flip).encode())


def test_a_sealed_file_under_another_format_is_no_keyring(folder: Path, credential: Unlock) -> None:
    used_vault(folder, unlock=credential)
    (folder / FILE).write_bytes((folder / FILE).read_bytes().replace(b"sealed keyring", b"sealed keyrinG"))
    assert "it is not a kpcache keyring; restore it from its backup" in refusal(folder, unlock=credential)


def test_a_sealed_file_that_is_damaged_is_told_with_the_cure(folder: Path, credential: Unlock) -> None:
    used_vault(folder, unlock=credential)
    file = json.loads((folder / FILE).read_bytes())
    (folder / FILE).write_text(json.dumps({**file, "version": 0}))
    told = refusal(folder, unlock=credential)
    assert "version is no whole number above 0; restore it from its backup" in told
    assert PREVIOUS in told


def test_a_file_sealed_by_a_later_kpcache_is_whole_and_nothing_to_restore(
    folder: Path, credential: Unlock
) -> None:
    used_vault(folder, unlock=credential)
    file = json.loads((folder / FILE).read_bytes())
    (folder / FILE).write_text(json.dumps({**file, "version": 2}))
    told = refusal(folder, unlock=credential)
    assert "a later kpcache wrote it, in version 2; this one reads up to 1; the file is whole: use" in told
    assert "restore" not in told


# --- the key's derivation


@pytest.mark.parametrize(
    "hostile",
    [
        {"memory_kib": 2**20 + 1},
        {"memory_kib": 2**40},
        {"memory_kib": 8},
        {"iterations": 17},
        {"iterations": 10**400},
        {"lanes": 2**24},
        {"salt": ""},
        {"salt": base64.b64encode(bytes(17)).decode()},
        {"salt": None},
        {"name": "argon2d"},
        {"name": ["argon2id"]},
        {"name": "hkdf-sha256"},
        {"p": 1},
    ],
)
def test_parameters_that_are_not_ours_are_refused_before_any_is_used(
    hostile: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start must not take terabytes, or days, because somebody could write the file."""
    good = kdf.fresh(guessable=True, urandom=os.urandom)
    monkeypatch.setattr(kdf, "_algorithm", lambda *_: pytest.fail("it was used"))
    with pytest.raises(DocumentError):
        kdf.derive(good | hostile, b"secret")


@pytest.mark.parametrize("n", [2**17 + 1, 2**21, 2**16, True])
def test_scrypt_has_bounds_too(n: int) -> None:
    parameters = {"name": "scrypt", "salt": base64.b64encode(bytes(16)).decode(), "n": n, "r": 8, "p": 1}
    with pytest.raises(DocumentError):
        kdf.derive(parameters, b"secret")


def test_a_passphrase_goes_through_rfc_9106s_second_choice() -> None:
    fresh = kdf.fresh(guessable=True, urandom=os.urandom)
    assert len(base64.b64decode(fresh.pop("salt"))) == 16
    assert fresh == {"name": "argon2id", "iterations": 3, "lanes": 4, "memory_kib": 65536}


def test_keys_are_those_of_other_implementations() -> None:
    """Computed once with argon2-cffi 25.1, hashlib.scrypt and an HKDF by hand (RFC 5869, with hmac)."""
    salt = base64.b64encode(bytes(range(16))).decode()
    argon2id = {"name": "argon2id", "salt": salt, "iterations": 3, "lanes": 4, "memory_kib": 65536}
    scrypt = {"name": "scrypt", "salt": salt, "n": 2**17, "r": 8, "p": 1}
    assert (
        kdf.derive(argon2id, PASSPHRASE).hex()
        == "853b272a44db1421c02962669a55eb0994f3cab385ed1c4c79253eee19bab49e"
    )
    assert (
        kdf.derive(scrypt, PASSPHRASE).hex()
        == "1b2946da71f41179e83b99dc33842d15741b87c4121c8c7f3781c1df864fb58b"
    )
    assert (
        kdf.derive({"name": "hkdf-sha256", "salt": salt}, bytes(32)).hex()
        == "a39fa627550e4c2342a68d880f7adc098c19f967e921096e281218035503b126"
    )


def test_without_argon2id_a_passphrase_goes_through_scrypt(
    folder: Path, passphrase: Unlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(**_: object) -> None:
        raise UnsupportedAlgorithm("Argon2id")

    sealed_elsewhere = Sealer(passphrase, os.urandom).seal(b"a document")
    monkeypatch.setattr(kdf, "Argon2id", unsupported)
    vault = used_vault(folder, unlock=passphrase)
    assert json.loads((folder / FILE).read_bytes())["kdf"]["name"] == "scrypt"
    assert open_vault(folder, unlock=passphrase).content == vault.content
    with pytest.raises(ConfigError, match="has no argon2id; install its own wheel"):
        Sealer(passphrase, os.urandom).open(sealed_elsewhere)


def test_too_little_memory_is_told(passphrase: Unlock, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hungry:
        def __init__(self, **_: object) -> None: ...

        def derive(self, _: bytes) -> bytes:
            raise MemoryError

    monkeypatch.setattr(kdf, "Argon2id", Hungry)
    with pytest.raises(ConfigError, match="not enough memory for argon2id"):
        Sealer(passphrase, os.urandom).seal(b"a document")


# --- secrets that are none


def test_a_credential_that_systemd_does_not_give(folder: Path) -> None:
    told = refusal(folder, unlock=Unlock.from_settings("credential", "", {}))
    assert "$CREDENTIALS_DIRECTORY is not set" in told
    assert "systemd-creds encrypt --name=kpcache-keyring" in told
    assert "LoadCredentialEncrypted=kpcache-keyring" in told
    assert os.listdir(folder) == []


@pytest.mark.parametrize("size", [None, 0, 31, 65537])
def test_a_credential_that_is_no_secret(folder: Path, credential: Unlock, size: int | None) -> None:
    secret_file(credential).unlink()
    if size is not None:
        secret_file(credential).write_bytes(os.urandom(size))
    told = refusal(folder, unlock=credential)
    assert str(secret_file(credential)) in told
    assert "systemd-creds encrypt" in told
    assert os.listdir(folder) == []


@pytest.mark.parametrize("content", [b"", b"\n", b"elevenchars", b"elevenchars\n", "ééééééééééé".encode()])
def test_a_passphrase_that_is_soon_guessed(folder: Path, passphrase: Unlock, content: bytes) -> None:
    secret_file(passphrase).write_bytes(content)
    told = refusal(folder, unlock=passphrase)
    assert "is soon guessed; take 12 or more" in told
    assert content.decode().strip() == "" or content.decode().strip() not in told
    assert os.listdir(folder) == []


@pytest.mark.parametrize("again", [PASSPHRASE, PASSPHRASE + b"\n"])
def test_a_trailing_newline_is_no_part_of_the_passphrase(
    folder: Path, passphrase: Unlock, again: bytes
) -> None:
    used_vault(folder, unlock=passphrase)
    secret_file(passphrase).write_bytes(again)
    open_vault(folder, "never", unlock=passphrase)
    secret_file(passphrase).write_bytes(again + b" ")
    refusal(folder, unlock=passphrase)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_passphrase_that_others_may_read_is_refused_until_the_cure_is_run(
    folder: Path, passphrase: Unlock, mode: int
) -> None:
    secret_file(passphrase).chmod(mode)
    cure = refusal(folder, unlock=passphrase).partition("run: ")[2]
    assert cure == f"chmod 600 {shlex.quote(str(secret_file(passphrase)))}"
    subprocess.run(["/bin/sh", "-c", cure], check=True)
    open_vault(folder, unlock=passphrase)


@pytest.mark.parametrize(("owner", "accepted"), [(4242, False), (0, True)])
def test_a_passphrase_must_be_ours_or_roots(
    passphrase: Unlock, monkeypatch: pytest.MonkeyPatch, owner: int, accepted: bool
) -> None:
    fstat = os.fstat

    def owned(fd: int) -> os.stat_result:
        fields: list[Any] = list(fstat(fd))
        fields[stat.ST_UID] = owner
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", owned)
    monkeypatch.setattr(os, "geteuid", lambda: 4243)
    if accepted:
        assert passphrase.secret() == PASSPHRASE
    else:
        with pytest.raises(ConfigError, match="owned by uid 4242, neither ours"):
            passphrase.secret()


def test_a_passphrase_file_that_is_none(folder: Path, passphrase: Unlock) -> None:
    file = secret_file(passphrase)
    file.unlink()
    told = refusal(folder, unlock=passphrase)
    assert f"keyring.passphrase_file: {file} cannot be read (No such file or directory)" in told
    os.mkfifo(file, 0o600)
    assert f"{file} is not a regular file" in refusal(folder, unlock=passphrase)


def test_nothing_secret_is_shown(passphrase: Unlock) -> None:
    sealer = Sealer(passphrase, os.urandom)
    sealer.seal(b"a document")
    assert PASSPHRASE.decode() not in f"{passphrase!r} {sealer!r} {vars(sealer)}"
