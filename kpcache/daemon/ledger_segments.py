"""What the ledger knows of the reserve: the segments that were claimed, and whose pairs are recorded.

A claim is one row, durable before anything in the segment is read. Rows are never removed: there is one for
each segment that ever waited out a restart. At each restart these are as many as there are shards, and one
more for each 384 KiB of pairs that a shard held beyond its first (``segment.FULL_BYTES``).
"""

from typing import Final

from kpcache.daemon.ledger_schema import NUMBERS, TAG

# Made where there is none: a ledger that was begun before there was a reserve is as good.
CREATE: Final = """CREATE TABLE IF NOT EXISTS segments (
    name TEXT PRIMARY KEY, life INTEGER NOT NULL, minute INTEGER NOT NULL) WITHOUT ROWID"""
# The first life of the daemon whose pairs may come back: all before an alarm, a snapshot or a copy of the
# machine may not, whenever and wherever a segment of them turns up.
CREATE_FLOOR: Final = """CREATE TABLE IF NOT EXISTS reserve_floor (
    one INTEGER PRIMARY KEY CHECK (one = 1), life INTEGER NOT NULL)"""
FLOOR: Final = "SELECT max(life) FROM (SELECT life FROM reserve_floor UNION ALL SELECT 1 AS life)"
RAISE_FLOOR: Final = """INSERT INTO reserve_floor VALUES (1, ?)
    ON CONFLICT (one) DO UPDATE SET life = max(life, excluded.life)"""
# One row, if the name is new; none, if it is there.
CLAIM: Final = "INSERT INTO segments VALUES (?, ?, ?) ON CONFLICT DO NOTHING RETURNING name"
# Which of many tags are not recorded, in one statement: see ``ledger_schema``.
UNKNOWN: Final = f"{NUMBERS} SELECT i FROM n WHERE NOT EXISTS (SELECT 1 FROM tags WHERE tag = {TAG})"  # noqa: S608 - constants of ours
