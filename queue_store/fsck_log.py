"""Check the write-ahead log of the index: SQLite ends it, in silence, at the first frame that does not fit.

After a power cut that is right: what follows was never synced. But one damaged octet in the middle of a log takes
every commit behind it, acknowledged ones too. The two can be told apart: each commit is synced before the next one is
written, so a power cut spoils the last commit alone. The format is on sqlite.org/fileformat2.html#walformat.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from queue_store.finding import Finding, Severity
from queue_store.wal_format import FRAME, WAL_HEADER, LogHeader, add_to_sums, read_header

__all__ = ["check_log"]


def check_log(path: Path) -> Iterator[Finding]:
    """Find damage in a write-ahead log; there is none where there is no log. Raises OSError."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb") as file:
        octets = file.read(WAL_HEADER.size)
        log = read_header(octets)
        if log is None:
            if any(octets):
                yield Finding(
                    severity=Severity.ERROR,
                    where=path.name,
                    what="the header is damaged: no commit that is in the log counts",
                )
            return
        sound, lost = _walk(file, log)
    at = f"{path.name}, frame {sound + 1}"
    if lost > 1:
        yield Finding(severity=Severity.ERROR, where=at, what=f"it is damaged, and with it {lost} commits are lost")
    elif lost == 1:
        yield Finding(severity=Severity.NOTE, where=at, what="the last commit is not whole, and does not count")


def _walk(file: BinaryIO, log: LogHeader) -> tuple[int, int]:
    """Give how many frames are sound, and how many commits of the same log stand behind them."""
    sums = log.sums
    sound = lost = 0
    whole = True
    while len(octets := file.read(FRAME.size + log.page_size)) == FRAME.size + log.page_size:
        _, commit, *rest = FRAME.unpack_from(octets)
        ours = tuple(rest[:2]) == log.salts
        if whole:
            sums = add_to_sums(log.order, octets[FRAME.size :], add_to_sums(log.order, octets[:8], sums))
            whole = ours and tuple(rest[2:]) == sums
            sound += whole
        if not whole and ours and commit:
            lost += 1
    return sound, lost
