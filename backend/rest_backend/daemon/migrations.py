"""Journals of older engines brought to today's version: forward only, after a copy was put aside.

A step may be interrupted anywhere: it is done again at the next start, and the journal's
version changes in the same transaction as its tables.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

_TO_VERSION_2 = """
ALTER TABLE jobs ADD COLUMN abandon_seconds INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN device TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN next_seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN class_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN submitted REAL NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN started REAL NOT NULL DEFAULT 0;
UPDATE jobs SET
    next_seq = (SELECT COUNT(*) FROM blocks WHERE job = jobs.id),
    class_bytes = (SELECT COALESCE(SUM(width * height), 0) FROM blocks WHERE job = jobs.id);
CREATE TABLE blocks_2 (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    product TEXT NOT NULL,
    column_ INTEGER NOT NULL, row INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    crc32 INTEGER NOT NULL,
    PRIMARY KEY (job, seq)
) WITHOUT ROWID;
INSERT INTO blocks_2 SELECT job, seq, 'classes', column_, row, width, height, offset, crc32 FROM blocks;
DROP TABLE blocks;
ALTER TABLE blocks_2 RENAME TO blocks;
"""


def backup_path(journal: Path, version: int) -> Path:
    """Where the copy of a journal of an older version lies."""
    return journal.with_name(f"{journal.name}.version-{version}")


def migrate(database: sqlite3.Connection, path: Path) -> None:
    """Bring an open journal of version 1 to version 2; the spool beside it too.

    Args:
        database: The journal, in no transaction.
        path: Its file.

    Raises:
        sqlite3.Error: It cannot be changed; it is as it was.
        OSError: The copy cannot be written, or a spool file cannot be renamed.
    """
    _put_aside(database, backup_path(path, 1))
    # Version 1 knew class rows only, in a file of another name.
    for rows in (path.parent / "spool").glob("*/rows.raw"):
        rows.replace(rows.with_name("classes.raw"))
    try:
        database.executescript(f"BEGIN IMMEDIATE; {_TO_VERSION_2} PRAGMA user_version=2; COMMIT;")
    except sqlite3.Error:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _put_aside(database: sqlite3.Connection, target: Path) -> None:
    temporary = target.with_name(target.name + ".part")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    copy = sqlite3.connect(temporary)
    try:
        database.backup(copy)
    finally:
        copy.close()
    temporary.replace(target)
