"""The operations of one transaction, done in order: runs of appends and of settlements are written together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from queue_store.errors import CampaignHalted, StoreError
from queue_store.failpoints import ARMED, reach
from queue_store.index import BatchRows, Index
from queue_store.index_claims import claim
from queue_store.index_mail import append_messages, settle, unclaim
from queue_store.operations import Append, Call, Claiming, Operation, Settle, Unclaim
from queue_store.segments import Segments

__all__ = ["Batch", "Result"]

Result = tuple[Operation, Any, BaseException | None]


class Batch:
    """The operations of one transaction, in order; runs of appends and of settlements are gathered."""

    def __init__(self, index: Index, segments: Segments) -> None:
        self._index = index
        self._segments = segments
        self._appends: list[tuple[int, Append]] = []
        self._settles: list[tuple[int, Settle]] = []

    def is_one_write(self, batch: Sequence[Operation]) -> bool:
        """Whether the batch comes to one write of rows: mail of known campaigns and lanes, and settlements."""
        campaigns, lanes = self._index.campaigns, self._index.lanes
        for operation in batch:
            if isinstance(operation, Append):
                message = operation.message
                if campaigns.find(message.campaign) is None:
                    return False
                for recipient in message.recipients:
                    if not lanes.is_cached(recipient.lane):
                        return False
            elif not isinstance(operation, Settle):
                return False
        return True

    def do(self, batch: Sequence[Operation]) -> list[Result]:
        """Do all; give the results in the order of the batch."""
        self._results: list[Result | None] = [None] * len(batch)
        for at, operation in enumerate(batch):
            if isinstance(operation, Append):
                self._appends.append((at, operation))
            elif isinstance(operation, Settle):
                self._settles.append((at, operation))
            else:
                self._flush()
                self._results[at] = self._do(operation)
        self._flush()
        return [result for result in self._results if result is not None]

    def _do(self, operation: Operation) -> Result | None:
        if isinstance(operation, Claiming):
            page = claim(self._index, operation.lane, operation.limit, operation.cursor)
            return operation, page, None
        if isinstance(operation, Unclaim):
            unclaim(self._index, operation.claims)
            return operation, None, None
        if isinstance(operation, Call):
            try:
                return operation, operation.work(self._index), None
            except CampaignHalted as error:  # raised before anything is written
                return operation, None, error
        return None

    def _flush(self) -> None:
        """Write the appends and the settlements that gathered, and what else changed in the counts, in one step."""
        rows = BatchRows()
        if self._appends:
            self._take_appends(rows)
        if self._settles:
            self._take_settles(rows)
        self._segments.sync()  # never a row whose body is not durable
        if ARMED:
            reach("bodies-synced")
        self._index.write(rows)

    def _take_appends(self, rows: BatchRows) -> None:
        messages = [operation.message for _, operation in self._appends]
        stored = append_messages(self._index, self._segments, messages, rows)
        if ARMED:
            reach("bodies-written")
        for (at, operation), value in zip(self._appends, stored, strict=True):
            if isinstance(value, StoreError):
                self._results[at] = (operation, None, value)
            else:
                self._results[at] = (operation, value, None)
        self._appends.clear()

    def _take_settles(self, rows: BatchRows) -> None:
        together = [settlement for _, operation in self._settles for settlement in operation.settlements]
        outcomes = settle(self._index, together, rows)
        first = 0
        for at, operation in self._settles:
            last = first + len(operation.settlements)
            self._results[at] = (operation, outcomes[first:last], None)
            first = last
        self._settles.clear()
