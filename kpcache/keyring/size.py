"""How large a keyring may be: by what it holds, so that whatever becomes of its keys an export of it can be
imported.

States, dates and revisions are not counted. Else the largest keyring's keys could not be disabled; or they
could, and its exports would be larger than what an import takes.
"""

import dataclasses

from kpcache.core.admin_operations import MAX_KEYRING_BYTES
from kpcache.errors import LimitExceededException
from kpcache.keyring import document
from kpcache.keyring.document import Document


def encoded(content: Document, before: Document | None = None) -> bytes:
    """The document's bytes. Raises ``LimitExceededException`` if it holds too much, and more than ``before``.

    What those that are not counted can add is less than ``MAX_DOCUMENT_BYTES`` has more than the limit.
    """
    data = document.encode(content)
    # What is counted is never more than the whole, which is known already.
    if len(data) > MAX_KEYRING_BYTES:
        held = held_bytes(content)
        if held > MAX_KEYRING_BYTES and (before is None or held > held_bytes(before)):
            raise LimitExceededException(
                f"The keyring would be larger than {MAX_KEYRING_BYTES} bytes: purge keys that nobody needs "
                "any more, or shorten descriptions and tags"
            )
    return data


def held_bytes(content: Document) -> int:
    """The size that counts."""
    keys = tuple(dataclasses.replace(key, state="Enabled", deletion_s=None) for key in content.keys)
    return len(document.encode(Document(keys, content.aliases, revision=1, exported_revision=0)))
