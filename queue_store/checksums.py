"""A checksum on each page of the index, by SQLite's own extension cksumvfs: damage is an error and not another address.

SQLite itself sums its log alone: a bit that flips in the file is read as what it then says. The extension keeps eight
octets at the end of each page, fills them as the page is written and checks them as it is read (an I/O error with the
extended code IOERR_DATA where they don't fit). It comes with apsw, and is C: no difference was measured at commits.

It wraps SQLite's default file system for all of the process, and lets alone the files that have no room for checksums.
A program that writes to an index without it (the sqlite3 shell) leaves pages that do not fit.
"""

from __future__ import annotations

import threading

import apsw
import apsw.sqlite_extra

__all__ = ["RESERVED", "PageCheck", "is_damage", "load_checksums"]

RESERVED = 8  # octets at the end of a page
_EXTENSION = "cksumvfs"

_loading = threading.Lock()
_loaded: list[str] = []


def load_checksums() -> None:
    """Have checksums from now on in this process. Raises LookupError, apsw.sqlite_extra.NotAvailable."""
    with _loading:
        if not _loaded:
            db = apsw.Connection(":memory:")
            try:
                apsw.sqlite_extra.load(db, _EXTENSION)
            finally:
                db.close()
            _loaded.append(_EXTENSION)


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that what it read is not what was written."""
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return True
    return isinstance(error, apsw.IOError) and getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_DATA


class PageCheck:
    """Checks pages that were read by other means. For one thread at a time."""

    def __init__(self) -> None:
        self._db = apsw.Connection(":memory:")
        apsw.sqlite_extra.load(self._db, _EXTENSION)

    def fits(self, page: bytes) -> bool:
        """Whether the checksum at the end of a page is that of the page; not so for one of zeros."""
        row = self._db.execute("SELECT verify_checksum(?)", (page,)).fetchone()
        return row is not None and bool(row[0]) and any(page)

    def close(self) -> None:
        """Let go of it."""
        self._db.close()
