"""How keys are named to clients: ARNs, aliases, and KMS's recorded words for a name that leads nowhere.

Local keys have region ``local`` and account ``000000000000``, which no AWS ARN has.
"""

import re
import uuid
from typing import Final

from kpcache.core.contract import shown
from kpcache.errors import InvalidArnException, NotFoundException

ACCOUNT: Final = "000000000000"
REGION: Final = "local"
ARN_PREFIX: Final = f"arn:aws:kms:{REGION}:{ACCOUNT}:"
# What begins with "arn:" and is not of this form is malformed. That is chosen: KMS states no rule, and no
# answer to such an ARN is recorded. A region, an account or a key that is merely not here is well-formed,
# hence not found (recorded for the region), and what does not begin so is no ARN but a wrong key id.
_ARN: Final = re.compile(r"arn:aws[a-z-]*:kms:([a-z0-9-]+):[0-9]{12}:(key|alias)/.+", re.ASCII)
# KMS, CreateAlias: these characters, and alias/aws/ is for AWS's own.
_ALIAS: Final = re.compile(r"alias/[a-zA-Z0-9/_-]{1,250}", re.ASCII)


def key_arn(key_id: str) -> str:
    """The ARN of a key of this keyring."""
    return f"{ARN_PREFIX}key/{key_id}"


def is_alias(text: str) -> bool:
    """Whether this can be the name of an alias, ``alias/`` included."""
    return _ALIAS.fullmatch(text) is not None and not text.startswith("alias/aws/")


def is_key_id(text: str) -> bool:
    """Whether this is a UUID in the one spelling that is used here: lower case, with hyphens."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def refuse_malformed_arn(key_id: str) -> None:
    """Raise ``InvalidArnException`` for a KeyId that begins as an ARN and is none of a key or an alias.

    Only for the operations that have this error in KMS's model: DescribeKey, and those of administration
    whose input has ``KeyId``. To the others such a KeyId is one that names no key: ``not_found``.
    """
    if key_id.startswith("arn:") and _ARN.fullmatch(key_id) is None:
        raise InvalidArnException(
            f"Invalid arn '{shown(key_id)}': it must be arn:aws:kms:REGION:ACCOUNT:key/ID or :alias/NAME"
        )


def not_found(key_id: str) -> NotFoundException:
    """The answer to a KeyId, of any length and content, that names no key."""
    name = shown(key_id)
    if _ALIAS.fullmatch(key_id):
        return NotFoundException(f"Alias {ARN_PREFIX}{name} is not found.")
    if is_key_id(key_id):
        return NotFoundException(f"Key '{ARN_PREFIX}key/{name}' does not exist")
    arn = _ARN.fullmatch(key_id)
    if arn is None:
        return NotFoundException(f"Invalid keyId '{name}'")
    region, kind = arn.groups()
    if region != REGION:
        return NotFoundException(f"Invalid arn {shown(region)}")
    return NotFoundException(
        f"Key '{name}' does not exist" if kind == "key" else f"Alias {name} is not found."
    )
