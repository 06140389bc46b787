"""The embedded KMS. ``document`` is what a keyring holds, ``changes`` how it may change, ``views`` how KMS shows
it; ``crypto`` wraps and opens (the blob format is in ``core/envelope``), ``keyring`` does so under KMS's names.
``vault`` keeps content and file together: ``store`` has the file's life, ``seal`` and ``kdf`` what is on disk."""

from kpcache.keyring.keyring import Decrypted, Key, Keyring, Wrapped, require_usable

__all__ = ["Decrypted", "Key", "Keyring", "Wrapped", "require_usable"]
