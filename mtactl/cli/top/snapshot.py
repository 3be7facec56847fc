"""What the screen shows, read from the daemon in one go: a handful of requests, however much there is behind them.

Of campaigns and lanes only the first few are asked for, in the order that is shown: a node may have 30,000 of them, and
whoever watches it must not slow it down.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from mtactl.cli.client import Client, campaign_path
from mtactl.cli.failures import Refused
from mtactl.cli.top.rates import NO_RATES, Meter, Odometers, Rates
from mtactl.control.types import CampaignList, CampaignReport, LaneList, LaneRow, Status

__all__ = ["MOST_ROWS", "Poller", "Snapshot", "Wanted"]

MOST_ROWS = 200
_MOST_HALTS = 20
_KEPT = 60.0  # seconds that a completed halt stays on the screen


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be read. `sort` is an order of the API, or "rate", which is found among those with most in flight."""

    campaigns: bool = True
    campaign_sort: str = "queued"
    campaign_match: str = ""
    lanes: bool = False
    lane_sort: str = "in_flight"
    lane_match: str = ""
    detail: str | None = None
    watch: tuple[str, ...] = ()  # campaigns whose halt is to be shown, also when it is completed already


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What was read at `at` (seconds since the epoch). `halts`: those under way, and those completed a moment ago."""

    at: float
    status: Status
    rates: Rates = NO_RATES
    campaigns: Sequence[CampaignReport] = ()
    campaigns_total: int = 0
    campaign_rates: Mapping[str, float] = field(default_factory=dict)
    lanes: Sequence[LaneRow] = ()
    lanes_total: int = 0
    lane_rates: Mapping[str, float] = field(default_factory=dict)
    halts: Sequence[CampaignReport] = ()
    detail: CampaignReport | None = None

    def without_rates(self) -> Snapshot:
        """Give it as it may be shown when it is not fresh any more."""
        return replace(self, rates=NO_RATES, campaign_rates={}, lane_rates={})

    def document(self) -> bytes:
        """Give it as one JSON document; a rate is null while it is not known."""
        return msgspec.json.encode(
            {
                "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.at)) + f".{int(self.at % 1 * 1000):03d}Z",
                "rates": {name: _rounded(getattr(self.rates, name)) for name in Rates.__slots__},
                "status": self.status,
                "campaigns": [
                    _with_rate(report, self.campaign_rates.get(report.campaign)) for report in self.campaigns
                ],
                "campaigns_total": self.campaigns_total,
                "lanes": [
                    {**msgspec.to_builtins(row), "delivered_rate": _rounded(self.lane_rates.get(row.lane))}
                    for row in self.lanes
                ],
                "lanes_total": self.lanes_total,
                "halts": list(self.halts),
            }
        )


class Poller:
    """Reads one snapshot after another. Used from one thread at a time."""

    def __init__(self, client: Client) -> None:
        self.meter = Meter()
        self._client = client
        self._campaigns = Odometers()
        self._lanes = Odometers()
        self._started = 0.0  # the daemon's start, on the clock here
        self._watched: OrderedDict[str, float | None] = OrderedDict()  # a halt, and when it was first seen completed
        self._completed: dict[str, CampaignReport] = {}

    def watch(self, campaign: str) -> None:
        """Show the halt of a campaign, also when it is completed before the next snapshot."""
        self._watched.setdefault(campaign, None)
        while len(self._watched) > _MOST_HALTS:
            gone, _ = self._watched.popitem(last=False)
            self._completed.pop(gone, None)

    def poll(self, wanted: Wanted) -> Snapshot:
        """Read all that is wanted. Raises Failure; the next rates are then told from new readings only."""
        try:
            return self._poll(wanted)
        except BaseException:
            self.meter.lose()
            self._campaigns.lose()
            self._lanes.lose()
            raise

    def _poll(self, wanted: Wanted) -> Snapshot:
        client = self._client
        status = client.get("/v1/status", Status).value
        started = time.monotonic() - status.uptime_seconds
        if abs(started - self._started) > 1.0:
            self._lanes.lose()  # a lane counts since the daemon started
            self._started = started
        facts: dict[str, Any] = {"status": status, "rates": self.meter.take(status)}
        if wanted.campaigns:
            facts |= self._read_campaigns(wanted)
        if wanted.lanes:
            facts |= self._read_lanes(wanted)
        for campaign in wanted.watch:
            self.watch(campaign)
        facts["halts"] = self._read_halts(status)
        if wanted.detail is not None:
            facts["detail"] = self._report(wanted.detail)
        return Snapshot(at=time.time(), **facts)

    def _read_campaigns(self, wanted: Wanted) -> dict[str, Any]:
        sort = "in_flight" if wanted.campaign_sort == "rate" else wanted.campaign_sort
        found = self._client.get(
            "/v1/campaigns", CampaignList, sort=sort, limit=MOST_ROWS, match=wanted.campaign_match or None
        ).value
        reports = found.campaigns
        rates = self._campaigns.take({each.campaign: each.counts.delivered for each in reports}, time.monotonic())
        if wanted.campaign_sort == "rate":
            reports = tuple(sorted(reports, key=lambda each: -rates.get(each.campaign, 0.0)))
        return {"campaigns": reports, "campaigns_total": found.total, "campaign_rates": rates}

    def _read_lanes(self, wanted: Wanted) -> dict[str, Any]:
        sort = "in_flight" if wanted.lane_sort == "rate" else wanted.lane_sort
        found = self._client.get(
            "/v1/lanes", LaneList, sort=sort, limit=MOST_ROWS, match=wanted.lane_match or None
        ).value
        rows = found.lanes
        rates = self._lanes.take({row.lane: row.delivered for row in rows}, time.monotonic())
        if wanted.lane_sort == "rate":
            rows = tuple(sorted(rows, key=lambda row: -rates.get(row.lane, 0.0)))
        return {"lanes": rows, "lanes_total": found.total, "lane_rates": rates}

    def _read_halts(self, status: Status) -> list[CampaignReport]:
        """Give the halts under way and those completed lately, the latest first."""
        halting: dict[str, CampaignReport] = {}
        if status.campaigns.get("halting"):
            found = self._client.get("/v1/campaigns", CampaignList, state="halting", sort="queued", limit=_MOST_HALTS)
            halting = {report.campaign: report for report in found.value.campaigns}
        for campaign in halting:
            self.watch(campaign)
        now = time.monotonic()
        for campaign, completed_at in list(self._watched.items()):
            if campaign in halting:
                continue
            if completed_at is None:
                report = self._report(campaign)
                if report is None or report.stop is None:
                    del self._watched[campaign]
                elif report.state == "halted":
                    self._watched[campaign], self._completed[campaign] = now, report
                else:
                    halting[campaign] = report
            elif now - completed_at > _KEPT:
                del self._watched[campaign]
                self._completed.pop(campaign, None)
        reports = [*halting.values(), *self._completed.values()]
        return sorted(reports, key=lambda each: each.stop.requested_at if each.stop else "", reverse=True)

    def _report(self, campaign: str) -> CampaignReport | None:
        try:
            return self._client.get(campaign_path(campaign), CampaignReport).value
        except Refused as refused:
            if refused.problem.status != 404:
                raise
            return None


def _with_rate(report: CampaignReport, rate: float | None) -> dict[str, Any]:
    return {
        "campaign": report.campaign,
        "state": report.state,
        "counts": report.counts,
        "delivered_rate": _rounded(rate),
    }


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 2)
