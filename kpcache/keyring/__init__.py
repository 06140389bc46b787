"""The embedded KMS.

- ``document`` is what a keyring holds, ``changes`` how it may change, ``clock`` whether days can be
  counted for that, ``views`` how KMS shows it.
- ``crypto`` wraps and opens (``core/envelope`` has the blob format), ``keyring`` does so under KMS's names.
- ``vault`` keeps content and file together: ``store`` is the file's life, ``opening`` what a start does to
  it, ``refusals`` why it does not, ``size`` how large it may be, ``files`` what any file takes.
- ``seal`` is what is in the file at rest, ``kdf`` the key of that where a secret is given, ``data_key``
  where a service has it.
"""

from kpcache.keyring.keyring import Decrypted, Key, Keyring, Wrapped, require_usable

__all__ = ["Decrypted", "Key", "Keyring", "Wrapped", "require_usable"]
