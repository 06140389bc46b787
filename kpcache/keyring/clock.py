"""The machine's clock, as far as the keyring's own dates tell whether it can be right."""

from datetime import UTC, datetime

from kpcache.errors import KMSInvalidStateException
from kpcache.keyring import names
from kpcache.keyring.document import Document


def refuse_behind(document: Document, now: float) -> None:
    """Refuse to count days by a clock that is behind any key's date, as after a start without a battery for
    the clock: days counted from 1970 are over when it is set. Raises ``KMSInvalidStateException``.

    All keys count, since one that is made or rotated under such a clock has no later date of its own.
    """
    dates = [
        (date, key.key_id)
        for key in document.keys
        for date in (key.created_s, *(material.created_s for material in key.materials))
    ]
    latest, key_id = max(dates)
    if now < latest:
        raise KMSInvalidStateException(
            f"This machine's clock says {date_of(now)}, yet {names.key_arn(key_id)} was made or rotated at "
            f"{date_of(latest)}: set the clock right. If it is right, that date is of one that ran ahead: "
            "disable what is not to be used any more, and schedule its deletion after that date."
        )


def date_of(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "seconds")
