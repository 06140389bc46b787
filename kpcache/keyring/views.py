"""A keyring as KMS shows one: members and their names are those of its service model 2014-11-01.

Times are Unix seconds. Nothing here shows a secret; lists come whole, whoever answers cuts them to pages.
"""

from typing import Any

from kpcache.keyring import names
from kpcache.keyring.document import Document, KeyRecord, Material


def key_metadata(record: KeyRecord) -> dict[str, Any]:
    """KeyMetadata."""
    metadata: dict[str, Any] = {
        "AWSAccountId": names.ACCOUNT,
        "KeyId": record.key_id,
        "Arn": names.key_arn(record.key_id),
        "CreationDate": record.created_s,
        "Enabled": record.state == "Enabled",
        "Description": record.description,
        "KeyUsage": "ENCRYPT_DECRYPT",
        "KeyState": record.state,
        "Origin": "AWS_KMS",  # KMS's word for material made by the key service itself
        "KeyManager": "CUSTOMER",
        "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
        "KeySpec": "SYMMETRIC_DEFAULT",
        "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
        "MultiRegion": False,
        "CurrentKeyMaterialId": record.materials[-1].material_id,
    }
    if record.deletion_s is not None:
        metadata["DeletionDate"] = record.deletion_s
    return metadata


def list_keys(document: Document) -> list[dict[str, Any]]:
    """KeyListEntry of every key, oldest first."""
    return [{"KeyId": key.key_id, "KeyArn": names.key_arn(key.key_id)} for key in document.keys]


def list_aliases(document: Document, key_id: str | None = None) -> list[dict[str, Any]]:
    """AliasListEntry of every alias, by name; of those of one key (its UUID) where it is given."""
    return [
        {"AliasName": alias, "AliasArn": f"{names.ARN_PREFIX}{alias}", "TargetKeyId": target}
        for alias, target in sorted(document.aliases.items())
        if key_id in (None, target)
    ]


def list_rotations(record: KeyRecord, *, all_material: bool) -> list[dict[str, Any]]:
    """RotationsListEntry of each rotation, oldest first; with ``all_material`` the first material's too."""
    entries = [_material_entry(record, material) for material in record.materials]
    return entries if all_material else entries[1:]


def _material_entry(record: KeyRecord, material: Material) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "KeyId": names.key_arn(record.key_id),
        "KeyMaterialId": material.material_id,
        "KeyMaterialState": "CURRENT" if material is record.materials[-1] else "NON_CURRENT",
    }
    if material is not record.materials[0]:
        entry |= {"RotationDate": material.created_s, "RotationType": "ON_DEMAND"}
    return entry


def list_tags(record: KeyRecord) -> list[dict[str, str]]:
    """Tag of every tag, by its key."""
    return [{"TagKey": key, "TagValue": value} for key, value in sorted(record.tags.items())]


def keyring_status(document: Document) -> dict[str, int]:
    """For ``kpcache.Status``. ``unexported_changes``: how many changes no known export has."""
    return {
        "keys": len(document.keys),
        "revision": document.revision,
        "exported_revision": document.exported_revision,
        "unexported_changes": document.revision - document.exported_revision,
    }
