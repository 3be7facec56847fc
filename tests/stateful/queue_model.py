"""What a queue store is, in plain Python: the model that the real one is compared with."""

from collections import Counter
from dataclasses import dataclass, field

from queue_store.records import Outcome, QueuedState, Settlement

READY, DEFERRED, SCHEDULED, CLAIMED = QueuedState


@dataclass(kw_only=True)
class Waiting:
    """A recipient without an outcome. `slot` is set while a transaction of it is open; `submitted`, once its settlement
    was handed to the store; `touched`, while an operation on it is under way.
    """

    id: int
    message: int
    campaign: str
    lane: str
    address: str
    state: QueuedState
    due: int | None = None
    attempts: int = 0
    slot: int | None = None
    ending: bool = False
    logged: Settlement | None = None
    touched: bool = False
    uncertain: bool = False

    def make(self, state: QueuedState, due: int | None = None) -> None:
        self.state = state
        self.due = due
        self.slot = None
        self.ending = False
        self.logged = None


@dataclass(kw_only=True)
class Ended:
    """A recipient with its outcome. A reply of None: whatever the store says of it."""

    id: int
    message: int
    campaign: str
    lane: str
    address: str
    outcome: Outcome
    after_stop: bool
    attempts: int
    at: int | None = None
    code: int | None = None
    reply: str | None = None


@dataclass(kw_only=True)
class Campaign:
    """`began` None: it may have (a power cut took the knowledge)."""

    accepted: int = 0
    refused: int = 0
    discarded: int = 0
    held: bool = False
    halted: bool = False
    began: bool | None = False
    kind: str | None = None
    ended: Counter = field(default_factory=Counter)
    after_stop: int = 0


class Books:
    """All of a store."""

    def __init__(self) -> None:
        self.campaigns: dict[str, Campaign] = {"": Campaign()}
        self.waiting: dict[int, Waiting] = {}
        self.ended: dict[int, Ended] = {}
        self.bodies: dict[int, bytes] = {}
        self.received: dict[int, int] = {}
        self.senders: dict[int, str] = {}
        self.recipients: dict[int, int] = {}  # of a message, as accepted
        self.highest_id = 0

    def campaign(self, name: str) -> Campaign:
        return self.campaigns.setdefault(name, Campaign())

    def live(self, name: str) -> int:
        return sum(one.campaign == name for one in self.waiting.values())

    def end(
        self,
        number: int,
        outcome: Outcome,
        *,
        after_stop: bool,
        tries: int = 0,
        at: int | None = None,
        code: int | None = None,
        reply: str | None = None,
    ) -> None:
        """Move a recipient to the outcomes."""
        was = self.waiting.pop(number)
        assert number not in self.ended
        self.ended[number] = Ended(
            id=number,
            message=was.message,
            campaign=was.campaign,
            lane=was.lane,
            address=was.address,
            outcome=outcome,
            after_stop=after_stop,
            attempts=was.attempts + tries,
            at=at,
            code=code,
            reply=reply,
        )
        campaign = self.campaigns[was.campaign]
        campaign.ended[outcome] += 1
        campaign.after_stop += after_stop and outcome is Outcome.DELIVERED

    def settle(self, settlement: Settlement) -> Outcome | None:
        """Do what a settlement says; give what must be stored."""
        was = self.waiting[settlement.recipient_id]
        assert was.state is CLAIMED
        campaign = self.campaigns[was.campaign]
        if settlement.began:
            campaign.began = True
        if settlement.outcome is None and not campaign.halted:
            was.make(DEFERRED, settlement.due)
            was.attempts += 1
            was.uncertain = settlement.uncertain
            return None
        outcome = settlement.outcome or (Outcome.UNKNOWN if settlement.uncertain else Outcome.DROPPED)
        after_stop = settlement.after_stop or settlement.outcome is None
        self.end(
            was.id,
            outcome,
            after_stop=after_stop,
            tries=int(settlement.began),
            at=settlement.at,
            code=settlement.code,
            reply=settlement.reply,
        )
        return outcome

    def recover(self, *, power_cut: bool) -> tuple[int, int, int]:
        """Do what opening the store after a crash must do; give how many were returned, are unknown, were settled."""
        returned = unknown = settled = 0
        for was in list(self.waiting.values()):
            if was.state is not CLAIMED:
                continue
            campaign = self.campaigns[was.campaign]
            was.touched = False
            if power_cut:
                if campaign.kind == "cancel":  # nothing had begun when the gate closed, and nothing could since
                    was.make(READY)
                    returned += 1
                    continue
                campaign.began = campaign.began or None
                if campaign.halted:
                    self.end(was.id, Outcome.UNKNOWN, after_stop=True)
                    unknown += 1
                else:
                    was.make(READY)
                    was.uncertain = True
                    returned += 1
            elif was.logged is not None:
                self.settle(was.logged)
                settled += 1
            elif was.slot is not None:
                campaign.began = True
                if not campaign.halted:
                    was.uncertain = was.uncertain or was.ending
                    was.make(READY)
                    returned += 1
                elif was.ending or was.uncertain:
                    self.end(was.id, Outcome.UNKNOWN, after_stop=True, tries=1)
                    unknown += 1
                else:
                    self.end(was.id, Outcome.DROPPED, after_stop=True, tries=1)
            else:
                was.make(READY)
                returned += 1
        return returned, unknown, settled

    def check_law(self) -> None:
        """The law, of each campaign and in total."""
        for name, campaign in self.campaigns.items():
            assert campaign.accepted == self.live(name) + campaign.ended.total(), name
        assert sum(campaign.accepted for campaign in self.campaigns.values()) == len(self.waiting) + sum(
            campaign.ended.total() for campaign in self.campaigns.values()
        )
