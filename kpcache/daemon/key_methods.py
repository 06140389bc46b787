"""The methods that need a key and no pair: Encrypt, Decrypt, ReEncrypt, DescribeKey. All answer at once.

The order of their refusals is that of ``core/contract``.
"""

from collections.abc import Callable
from typing import Any

from kpcache.core import contract
from kpcache.core.contract import SYMMETRIC_DEFAULT
from kpcache.core.wire import Request
from kpcache.daemon.access import Access, Visitor
from kpcache.daemon.fence import Fence
from kpcache.errors import IncorrectKeyException
from kpcache.keyring import Decrypted, Key, Keyring, names, require_usable


class KeyMethods:
    """Each takes a request and returns KMS's answer, or raises ``KpcacheError``."""

    def __init__(self, keyring: Keyring, fence: Fence, access: Access) -> None:
        """``fence``: in a copy of the machine nothing is wrapped under keys that the other copy has, too."""
        self._keyring = keyring
        self._fence = fence
        self._access = access
        self.by_name: dict[str, Callable[[Request, Visitor], dict[str, Any]]] = {
            "Encrypt": self._encrypt,
            "Decrypt": self._decrypt,
            "ReEncrypt": self._re_encrypt,
            "DescribeKey": self._describe_key,
        }

    def _encrypt(self, request: Request, visitor: Visitor) -> dict[str, Any]:
        data = admitted(request)
        contract.refuse_unoffered(data)
        key = self._access.resolve(visitor, request.method, data["KeyId"])
        contract.require_symmetric(data, "EncryptionAlgorithm")
        require_usable(key)
        contract.refuse_dry_run(data)
        self._fence.stands()
        wrapped = self._keyring.encrypt(key, data["Plaintext"], data.get("EncryptionContext", {}))
        return {
            "CiphertextBlob": wrapped.blob,
            "KeyId": key.arn,
            "EncryptionAlgorithm": SYMMETRIC_DEFAULT,
        }

    def _decrypt(self, request: Request, visitor: Visitor) -> dict[str, Any]:
        data = admitted(request)
        ignored = contract.ignores_ciphertext(data, "KeyId")
        contract.refuse_unoffered(data)
        named = self._named(visitor, request, data, "KeyId")
        contract.require_symmetric(data, "EncryptionAlgorithm")
        if not ignored:
            self._access.require_blob(visitor, request.method, data["CiphertextBlob"])
        opened = self._opened(data, named, "EncryptionContext", ignored=ignored)
        contract.refuse_dry_run(data)
        assert opened is not None  # noqa: S101 - a blob is only ignored in a dry run
        return {
            "KeyId": opened.key.arn,
            "Plaintext": opened.plaintext,
            "EncryptionAlgorithm": SYMMETRIC_DEFAULT,
            "KeyMaterialId": opened.material_id,
        }

    def _re_encrypt(self, request: Request, visitor: Visitor) -> dict[str, Any]:
        """The plaintext goes from one blob into the next and is in no answer, message or log."""
        data = admitted(request)
        ignored = contract.ignores_ciphertext(data, "SourceKeyId")
        contract.refuse_unoffered(data)
        source = self._named(visitor, request, data, "SourceKeyId")
        target = self._access.resolve(visitor, request.method, data["DestinationKeyId"])
        contract.require_symmetric(data, "SourceEncryptionAlgorithm", "DestinationEncryptionAlgorithm")
        if not ignored:
            self._access.require_blob(visitor, request.method, data["CiphertextBlob"])
        opened = self._opened(data, source, "SourceEncryptionContext", ignored=ignored)
        require_usable(target)
        contract.refuse_dry_run(data)
        assert opened is not None  # noqa: S101 - a blob is only ignored in a dry run
        self._fence.stands()
        wrapped = self._keyring.encrypt(
            target, opened.plaintext, data.get("DestinationEncryptionContext", {})
        )
        return {
            "CiphertextBlob": wrapped.blob,
            "SourceKeyId": opened.key.arn,  # in AWS's recorded answers an ARN too
            "KeyId": target.arn,
            "SourceEncryptionAlgorithm": SYMMETRIC_DEFAULT,
            "DestinationEncryptionAlgorithm": SYMMETRIC_DEFAULT,
            "SourceKeyMaterialId": opened.material_id,
            "DestinationKeyMaterialId": wrapped.material_id,
        }

    def _describe_key(self, request: Request, visitor: Visitor) -> dict[str, Any]:
        data = admitted(request)
        contract.refuse_unoffered(data)
        names.refuse_malformed_arn(data["KeyId"])
        key = self._access.resolve(visitor, request.method, data["KeyId"])
        return {"KeyMetadata": self._keyring.describe(key)}

    def _named(self, visitor: Visitor, request: Request, data: dict[str, Any], member: str) -> Key | None:
        """The key that the caller expects the blob to have been made under, if it says so."""
        return self._access.resolve(visitor, request.method, data[member]) if member in data else None

    def _opened(
        self, data: dict[str, Any], named: Key | None, context: str, *, ignored: bool
    ) -> Decrypted | None:
        """The opened blob; None if it is not to be looked at, once the named key is known to be usable."""
        if ignored:
            assert named is not None  # noqa: S101 - contract.ignores_ciphertext
            require_usable(named)
            return None
        opened = self._keyring.decrypt(data["CiphertextBlob"], data.get(context, {}))
        if named is not None and named.key_id != opened.key.key_id:
            raise IncorrectKeyException(
                "The key ID in the request does not identify a CMK that can perform this operation."
            )
        return opened


def admitted(request: Request) -> dict[str, Any]:
    """The validated input of a method that takes no options. Raises ``ValidationException``."""
    data = contract.validate(request.method, request.data)
    contract.refuse_options(request)
    return data
