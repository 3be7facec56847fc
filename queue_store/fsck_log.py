"""Check the write-ahead log of the index: SQLite ends it, in silence, at the first frame that does not fit.

After a power cut that is right: what follows was never synced. But one damaged octet in the middle of a log takes
every commit behind it, acknowledged ones too. The two can be told apart: each commit is synced before the next one is
written, so a power cut spoils the last commit alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from queue_store.finding import Finding, Kind, Severity
from queue_store.mending import LOG
from queue_store.page_image import PageImage

__all__ = ["check_log"]


def check_log(image: PageImage) -> Iterator[Finding]:
    """Find damage in the log that an image of the index was read with."""
    if image.log_is_empty:
        return
    if not image.log_has_header:
        what = "the header is damaged: no commit that is in the log counts"
        yield Finding(severity=Severity.ERROR, where=LOG, what=what, kind=Kind.LOG)
        return
    at = f"{LOG}, frame {image.sound_frames + 1}"
    if image.lost_commits > 1:
        what = f"it is damaged, and with it {image.lost_commits} commits are lost"
        yield Finding(severity=Severity.ERROR, where=at, what=what, kind=Kind.LOG)
    elif image.lost_commits == 1:
        what = "the last commit is not whole, and does not count"
        yield Finding(severity=Severity.NOTE, where=at, what=what, kind=Kind.TORN)
