-- How a batch is written: tables and triggers of the writer's own connection, in memory.
--
-- SQLite gives up the interpreter's lock at each step of each statement, and taking it back from a busy event loop costs
-- more than a row does. So all the rows of a batch go in as the columns of one row, each a JSON array of arrays, inserted
-- into the view `batch`; the triggers below do the rest in that one step (docs/adr/0011).

-- Recipients that are to leave the queue, with their outcomes, and the messages that they belong to.
CREATE TEMP TABLE chosen (
    campaign_id INTEGER, id INTEGER, message_id INTEGER, state INTEGER, outcome INTEGER, after_stop INTEGER, at INTEGER,
    tries INTEGER, code INTEGER, reply TEXT, peer TEXT
);
CREATE TEMP TABLE touched (message_id INTEGER PRIMARY KEY, gone INTEGER NOT NULL);

-- Insert the number of rows in `chosen` here: they move to the outcomes, and the living are taken off messages and
-- segments. The left side of each join is the small one; CROSS JOIN keeps the planner from thinking otherwise.
CREATE TEMP VIEW ending AS SELECT NULL AS number;
CREATE TEMP TRIGGER end_chosen INSTEAD OF INSERT ON ending BEGIN
    INSERT INTO outcomes (campaign_id, id, message_id, lane_id, address, outcome, after_stop, at, attempts, code, reply,
        peer)
    SELECT r.campaign_id, r.id, r.message_id, r.lane_id, r.address, b.outcome, b.after_stop, b.at, r.attempts + b.tries,
        b.code, b.reply, b.peer
    FROM chosen AS b CROSS JOIN recipients AS r
    WHERE r.campaign_id = b.campaign_id AND r.id = b.id AND r.state = b.state;
    SELECT RAISE(ABORT, 'some recipients to be settled are not in the queue as the caller has it')
    WHERE changes() <> NEW.number;
    DELETE FROM recipients WHERE (campaign_id, id) IN (SELECT campaign_id, id FROM chosen);
    SELECT RAISE(ABORT, 'some recipients to be settled are in the batch twice') WHERE changes() <> NEW.number;
    DELETE FROM touched;
    INSERT INTO touched (message_id, gone) SELECT message_id, count(*) FROM chosen GROUP BY message_id;
    UPDATE segments SET live_messages = live_messages - d.messages, live_bytes = live_bytes - d.bytes
    FROM (
        SELECT m.segment AS segment, count(*) AS messages, sum(m.size) AS bytes
        FROM touched AS t CROSS JOIN messages AS m WHERE m.id = t.message_id AND m.live = t.gone GROUP BY m.segment
    ) AS d
    WHERE segments.id = d.segment;
    DELETE FROM messages WHERE id IN (
        SELECT t.message_id FROM touched AS t CROSS JOIN messages AS m WHERE m.id = t.message_id AND m.live = t.gone
    );
    -- What is left of them.
    UPDATE messages SET live = live - (SELECT t.gone FROM touched AS t WHERE t.message_id = messages.id)
    WHERE id IN (SELECT message_id FROM touched);
END;

-- Insert a halted campaign's id and how many of its recipients are to leave the queue, at most: the first that are not
-- claimed do, as dropped after the stop, and are left in `chosen`. What may have been delivered before the stop is not
-- said to be dropped by it. DROPPED and UNKNOWN are 4 and 5 (records.Outcome).
CREATE TEMP VIEW dropping AS SELECT NULL AS campaign_id, NULL AS recipients, NULL AS at;
CREATE TEMP TRIGGER drop_recipients INSTEAD OF INSERT ON dropping BEGIN
    DELETE FROM chosen;
    INSERT INTO chosen (campaign_id, id, message_id, state, outcome, after_stop, at, tries, reply, peer)
    SELECT campaign_id, id, message_id, state, iif(uncertain, 5, 4), 1, NEW.at, 0, 'the campaign was halted', ''
    FROM recipients WHERE campaign_id = NEW.campaign_id AND state <> 3 ORDER BY id LIMIT NEW.recipients;
    INSERT INTO ending (number) SELECT count(*) FROM chosen;
    UPDATE campaigns SET dropped = dropped + d.drops, unknown = unknown + d.unknowns,
        deferred = deferred - d.deferrals, scheduled = scheduled - d.schedules
    FROM (
        SELECT count(*) FILTER (WHERE outcome = 4) AS drops, count(*) FILTER (WHERE outcome = 5) AS unknowns,
            count(*) FILTER (WHERE state = 1) AS deferrals, count(*) FILTER (WHERE state = 2) AS schedules
        FROM chosen
    ) AS d
    WHERE campaigns.id = NEW.campaign_id;
END;

CREATE TEMP VIEW batch AS
SELECT NULL AS messages, NULL AS recipients, NULL AS segments, NULL AS deferred, NULL AS deferrals, NULL AS ended,
    NULL AS endings, NULL AS counts, NULL AS next_id;

CREATE TEMP TRIGGER append_messages INSTEAD OF INSERT ON batch WHEN NEW.messages IS NOT NULL BEGIN
    INSERT INTO messages (id, campaign_id, reverse_path, received_at, segment, offset, size, eight_bit, smtputf8, ret,
        envid, recipients, live)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
        value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 11
    FROM jsonb_each(NEW.messages);
    INSERT INTO recipients (campaign_id, id, message_id, lane_id, address, state, due, notify, orcpt)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
        value ->> 8
    FROM jsonb_each(NEW.recipients);
END;

CREATE TEMP TRIGGER fill_segments INSTEAD OF INSERT ON batch WHEN NEW.segments IS NOT NULL BEGIN
    INSERT INTO segments (id, length, live_bytes, live_messages, first_message, last_message)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
    FROM jsonb_each(NEW.segments) WHERE true
    ON CONFLICT (id) DO UPDATE SET length = excluded.length, live_bytes = live_bytes + excluded.live_bytes,
        live_messages = live_messages + excluded.live_messages,
        first_message = min(first_message, excluded.first_message),
        last_message = max(last_message, excluded.last_message);
END;

CREATE TEMP TRIGGER defer_recipients INSTEAD OF INSERT ON batch WHEN NEW.deferred IS NOT NULL BEGIN
    UPDATE recipients SET state = 1, due = d.value ->> 2, attempts = attempts + 1, last_code = d.value ->> 3,
        last_reply = d.value ->> 4, uncertain = d.value ->> 5
    FROM jsonb_each(NEW.deferred) AS d
    WHERE recipients.campaign_id = (d.value ->> 0) AND recipients.id = (d.value ->> 1) AND recipients.state = 3;
    SELECT RAISE(ABORT, 'some recipients to be deferred are not claimed') WHERE changes() <> NEW.deferrals;
END;

CREATE TEMP TRIGGER end_recipients INSTEAD OF INSERT ON batch WHEN NEW.ended IS NOT NULL BEGIN
    DELETE FROM chosen;
    INSERT INTO chosen (campaign_id, id, message_id, state, outcome, after_stop, at, tries, code, reply, peer)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
        value ->> 8, value ->> 9, value ->> 10
    FROM jsonb_each(NEW.ended);
    INSERT INTO ending (number) VALUES (NEW.endings);
END;

-- In the order of index.py's _COUNTS.
CREATE TEMP TRIGGER add_counts INSTEAD OF INSERT ON batch WHEN NEW.counts IS NOT NULL BEGIN
    UPDATE campaigns SET
        accepted = accepted + (d.value ->> 1), delivered = delivered + (d.value ->> 2),
        delivered_after_stop = delivered_after_stop + (d.value ->> 3), bounced = bounced + (d.value ->> 4),
        expired = expired + (d.value ->> 5), dropped = dropped + (d.value ->> 6), unknown = unknown + (d.value ->> 7),
        deferred = deferred + (d.value ->> 8), scheduled = scheduled + (d.value ->> 9),
        refused = refused + (d.value ->> 10), discarded = discarded + (d.value ->> 11),
        began = max(began, d.value ->> 12)
    FROM jsonb_each(NEW.counts) AS d
    WHERE campaigns.id = (d.value ->> 0);
END;

CREATE TEMP TRIGGER keep_next_id INSTEAD OF INSERT ON batch WHEN NEW.next_id IS NOT NULL BEGIN
    UPDATE meta SET value = NEW.next_id WHERE key = 'next_id';
END;
