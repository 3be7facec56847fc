-- The index of a queue store. Everything but the bodies is here, so everything changes in one transaction.
--
-- The law, for each campaign: accepted = live + delivered + bounced + expired + dropped + unknown, where live is the
-- number of its rows in recipients. Outcomes may be pruned, so their rows are at most what the counts say.
--
-- Times are µs since the epoch. Identifiers are never used twice: message M has the recipients M+1 .. M+recipients,
-- all from the one counter in meta. Campaign 0 stands for mail without one.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,  -- next_id; clean: 1 after an orderly close; pruned: 1 once an outcome was forgotten
    value INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE lanes (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE campaigns (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    held INTEGER NOT NULL DEFAULT 0,
    began INTEGER NOT NULL DEFAULT 0,  -- a transaction of it began on this node, at some time
    accepted INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0,
    delivered_after_stop INTEGER NOT NULL DEFAULT 0,  -- a part of delivered
    bounced INTEGER NOT NULL DEFAULT 0,
    expired INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0,
    unknown INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0,
    discarded INTEGER NOT NULL DEFAULT 0,
    deferred INTEGER NOT NULL DEFAULT 0,  -- parts of what is live; kept so that opening need not count
    scheduled INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Kept for ever.
CREATE TABLE halts (
    campaign_id INTEGER PRIMARY KEY REFERENCES campaigns (id),
    kind TEXT NOT NULL,  -- stop, cancel
    reason TEXT,
    requested_uid INTEGER,
    requested_user TEXT NOT NULL,
    requested_at INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,
    queued_at_stop INTEGER NOT NULL,
    in_flight_at_stop INTEGER NOT NULL,
    queue_dropped_at INTEGER,
    in_flight_finished_at INTEGER,
    completed_at INTEGER
) STRICT;

-- Who changed what. Kept for ever: a row for each command, not for each mail.
CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    uid INTEGER,
    user TEXT NOT NULL,
    action TEXT NOT NULL,  -- halt, hold, release
    campaign_id INTEGER NOT NULL REFERENCES campaigns (id),
    detail TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    campaign_id INTEGER NOT NULL,
    reverse_path TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    size INTEGER NOT NULL,  -- of the body in wire form
    eight_bit INTEGER NOT NULL,
    smtputf8 INTEGER NOT NULL,
    ret TEXT,
    envid TEXT,
    recipients INTEGER NOT NULL,  -- as accepted
    live INTEGER NOT NULL         -- without an outcome; the row goes with the last one
) STRICT;

-- Clustered by campaign: what a halt drops lies together, and a lane's page of a campaign does not seek.
CREATE TABLE recipients (
    campaign_id INTEGER NOT NULL,
    id INTEGER NOT NULL,
    message_id INTEGER NOT NULL,
    lane_id INTEGER NOT NULL,
    address TEXT NOT NULL,
    state INTEGER NOT NULL,  -- records.QueuedState
    due INTEGER,             -- of DEFERRED and SCHEDULED
    attempts INTEGER NOT NULL DEFAULT 0,
    uncertain INTEGER NOT NULL DEFAULT 0,  -- an attempt was lost after the end of the message: it may be delivered
    notify TEXT,
    orcpt TEXT,
    last_code INTEGER,
    last_reply TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (campaign_id, id)
) WITHOUT ROWID, STRICT;

CREATE INDEX ready ON recipients (lane_id, campaign_id, id) WHERE state = 0;
CREATE INDEX due ON recipients (due, campaign_id, id) WHERE state IN (1, 2);
CREATE INDEX claimed ON recipients (campaign_id, id) WHERE state = 3;

CREATE TABLE outcomes (
    campaign_id INTEGER NOT NULL,
    id INTEGER NOT NULL,
    message_id INTEGER NOT NULL,
    lane_id INTEGER NOT NULL,
    address TEXT NOT NULL,
    outcome INTEGER NOT NULL,  -- records.Outcome
    after_stop INTEGER NOT NULL,
    at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    code INTEGER,
    reply TEXT NOT NULL,
    peer TEXT NOT NULL,
    PRIMARY KEY (campaign_id, id)
) WITHOUT ROWID, STRICT;

CREATE TABLE segments (
    id INTEGER PRIMARY KEY,
    length INTEGER NOT NULL,         -- octets that commits vouch for: what is behind them is a torn tail
    live_bytes INTEGER NOT NULL,     -- bodies of living messages
    live_messages INTEGER NOT NULL,
    first_message INTEGER NOT NULL,  -- the least and the greatest message id that was ever put there
    last_message INTEGER NOT NULL
) STRICT;

INSERT INTO meta (key, value) VALUES ('next_id', 1), ('clean', 1), ('pruned', 0);
INSERT INTO campaigns (id, name) VALUES (0, '');
