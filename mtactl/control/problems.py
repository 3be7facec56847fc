"""What the control server says when it does not do what was asked: RFC 9457 problem documents.

Every failure that the daemon can raise is mapped to one here. `type` is a URN that a program may compare; `detail` is a
sentence for a person.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

from mtactl.control.types import Problem
from mtactl.errors import CampaignError, ConfigError, MtactlError, UnknownCampaign
from queue_store.errors import CampaignHalted, StoreError

__all__ = ["ProblemKind", "Refusal", "refusal_of"]


class ProblemKind(enum.Enum):
    """The kinds of problems: the end of the URN, the HTTP status, the title."""

    BAD_REQUEST = ("bad-request", 400, "The request can't be read")
    BAD_PARAMETER = ("bad-parameter", 400, "A query parameter is wrong")
    BAD_CAMPAIGN = ("bad-campaign-id", 400, "That is not a campaign id")
    FORBIDDEN = ("forbidden", 403, "Not permitted")
    UNKNOWN_PATH = ("unknown-path", 404, "There is no such path")
    UNKNOWN_CAMPAIGN = ("unknown-campaign", 404, "The campaign is not known on this node")
    UNKNOWN_MESSAGE = ("unknown-message", 404, "The message is not known on this node")
    WRONG_METHOD = ("wrong-method", 405, "The method is not possible on this path")
    TOO_SLOW = ("too-slow", 408, "The request took too long to arrive")
    ILLEGAL_MOVE = ("illegal-move", 409, "The campaign's state does not allow it")
    TOO_LARGE = ("too-large", 413, "The request is too large")
    BAD_BODY = ("bad-body", 422, "The body does not fit")
    NOT_CONFIRMED = ("not-confirmed", 422, "The halt is not confirmed")
    BAD_CONFIGURATION = ("bad-configuration", 422, "The configuration can't be used")
    HEADERS_TOO_LARGE = ("headers-too-large", 431, "The request's headers are too large")
    INTERNAL = ("internal", 500, "The daemon failed to answer")
    NOT_DURABLE = ("not-durable", 503, "The halt could not be made durable")
    STORE_FAILED = ("store-failed", 503, "The queue store could not do it")
    BUSY = ("busy", 503, "No more requests can be taken now")

    def __init__(self, name: str, status: int, title: str) -> None:
        self.urn = f"urn:mtactl:problem:{name}"
        self.status = status
        self.title = title


class Refusal(MtactlError):
    """A request is answered with a problem document. `headers` go on the answer with it."""

    def __init__(
        self,
        kind: ProblemKind,
        detail: str,
        *,
        problems: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.problems = tuple(problems)
        self.headers = dict(headers or {})

    @property
    def document(self) -> Problem:
        """The problem as it goes over the wire."""
        return Problem(
            type=self.kind.urn,
            title=self.kind.title,
            status=self.kind.status,
            detail=self.detail,
            problems=self.problems,
        )


def refusal_of(error: Exception) -> Refusal | None:
    """Give the answer to a failure that the node raised, or None when it is a defect that has none."""
    match error:
        case Refusal():
            return error
        case UnknownCampaign():
            return Refusal(ProblemKind.UNKNOWN_CAMPAIGN, str(error))
        case CampaignError() | CampaignHalted():
            return Refusal(ProblemKind.ILLEGAL_MOVE, str(error))
        case ConfigError():
            detail = "Nothing was changed. " + " ".join(error.problems)
            return Refusal(ProblemKind.BAD_CONFIGURATION, detail, problems=error.problems)
        case StoreError():
            return Refusal(ProblemKind.STORE_FAILED, str(error) or type(error).__name__)
        case _:
            return None
