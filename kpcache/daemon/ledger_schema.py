"""The tables of the ledger, and its statements: each does a whole batch.

A batch is one statement and no more. Each step of SQLite's in a thread gives up the interpreter's lock, and
beside a busy loop waiting for it takes 5 ms each time; 512 rows in as many steps took a quarter of a second.
So the columns of a batch come as one value each, laid end to end, and the statement takes them apart.
"""

from typing import Final

from kpcache.daemon.ledger_batch import FINGERPRINT_BYTES, MAKER_START_BYTES, TAG_BYTES

APPLICATION_ID: Final = 0x6B70636C  # "kpcl", in the file's header
VERSION: Final = 1

# ``lives``: the daemon's starts so far. ``rows``: how many tags there are, since to count them reads all.
# ``minute``: Unix time / 60. ``maker``, ``batch``: see ``MakerStart`` and ``batch_number`` in ledger_batch.
CREATE: Final = (
    """CREATE TABLE ledger (
        one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL, key_check BLOB NOT NULL,
        lives INTEGER NOT NULL, rows INTEGER NOT NULL, rolled_back TEXT NOT NULL)""",
    """CREATE TABLE tags (
        tag BLOB PRIMARY KEY, fingerprint BLOB NOT NULL, minute INTEGER NOT NULL, maker BLOB NOT NULL,
        batch INTEGER NOT NULL) WITHOUT ROWID""",
    "CREATE TRIGGER counted AFTER INSERT ON tags BEGIN UPDATE ledger SET rows = rows + 1; END",
    """CREATE TABLE alarms (
        batch INTEGER NOT NULL, number INTEGER NOT NULL, spec TEXT NOT NULL, public BLOB NOT NULL,
        minute INTEGER NOT NULL, maker BLOB NOT NULL, earlier_fingerprint BLOB NOT NULL,
        earlier_minute INTEGER NOT NULL, earlier_maker BLOB NOT NULL, earlier_life INTEGER NOT NULL,
        cleared_s REAL, PRIMARY KEY (batch, number))""",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)
BEGIN_LEDGER: Final = "INSERT INTO ledger VALUES (1, :id, :key_check, 0, 0, :rolled_back)"
READ_LEDGER: Final = "SELECT id, key_check, lives, rows, rolled_back FROM ledger"
BEGIN_LIFE: Final = "UPDATE ledger SET lives = max(lives, ?) + 1, rolled_back = ? RETURNING lives"
MISSING: Final = "UPDATE ledger SET rolled_back = ?"

NUMBERS: Final = """WITH RECURSIVE n (i) AS (
    SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :count)"""


def _part(values: str, size: int) -> str:
    return f"substr(:{values}, i * {size} + 1, {size})"


TAG: Final = _part("tags", TAG_BYTES)
_FINGERPRINT: Final = _part("fingerprints", FINGERPRINT_BYTES)
_MAKER: Final = _part("makers", MAKER_START_BYTES)
_ROWS: Final = f"""INSERT INTO tags (tag, fingerprint, minute, maker, batch) {NUMBERS}
    SELECT {TAG}, {_FINGERPRINT}, :minute, {_MAKER}, :batch FROM n WHERE true"""  # noqa: S608 - constants of ours
# All rows or, if a tag is there already or comes twice, none: check and record in one.
RECORD: Final = _ROWS
RECORD_NEW: Final = f"{_ROWS} ON CONFLICT DO NOTHING"
# Rows of other batches that have a tag of this one. What a failed attempt of this very batch may have left
# bears its number, and is not a duplicate. It is the same in all else too: a ledger that was put together by
# hand, out of two copies, may have two batches of one number.
CONFLICTS: Final = f"""{NUMBERS}
    SELECT i, fingerprint, tags.minute, maker, batch FROM n JOIN tags ON tag = {TAG}
    WHERE (batch, fingerprint, maker, tags.minute) <> (:batch, {_FINGERPRINT}, {_MAKER}, :minute)"""  # noqa: S608 - constants of ours

RAISE: Final = """INSERT INTO alarms
    SELECT ?1, coalesce(max(number) + 1, 0), ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, NULL
    FROM alarms WHERE batch = ?1"""
STANDING: Final = """SELECT spec, public, minute, maker, batch, earlier_fingerprint, earlier_minute,
    earlier_maker, earlier_life FROM alarms WHERE cleared_s IS NULL ORDER BY batch, number"""
CLEAR: Final = "UPDATE alarms SET cleared_s = ? WHERE cleared_s IS NULL"
