"""The embedded KMS: ``store`` keeps the file, ``document`` reads and writes what is in it, ``crypto`` wraps
and opens, ``keyring`` puts them together under KMS's names. The blob format is in ``core/envelope``."""

from kpcache.keyring.keyring import Decrypted, Key, Keyring, Wrapped, require_usable

__all__ = ["Decrypted", "Key", "Keyring", "Wrapped", "require_usable"]
