-- Every statement the store runs, by name. A name, one line of description, the statement.

-- name: newest_window
-- The window with the latest end in a monitor's ledger.
SELECT window_start, window_end FROM runs WHERE monitor = :monitor
ORDER BY window_end DESC, window_start DESC LIMIT 1;

-- name: enter_window
-- Enter a window in the ledger unless it is there; one that was written off and is due after all is due.
INSERT INTO runs (monitor, window_start, window_end, state) VALUES (:monitor, :start, :end, :state)
ON CONFLICT DO UPDATE SET state = 'due' WHERE state = 'missed' AND excluded.state = 'due';

-- name: due
-- Runs waiting; the first of every monitor, then the second of every monitor, and so on, so that a backlog starves nobody.
SELECT id, monitor, window_start, window_end, state, attempts FROM runs WHERE state = 'due'
ORDER BY row_number() OVER (PARTITION BY monitor ORDER BY window_end, window_start), window_end, id;

-- name: waiting
-- The oldest run waiting of every monitor (SQLite takes the other columns from the row with the minimum), and how many wait.
SELECT id, monitor, window_start, min(window_end), state, attempts, count(*) FROM runs WHERE state = 'due' GROUP BY monitor;

-- name: earlier
-- Of the finished windows of a length before a time the newest, and those that end up to :lateness before it, and what they were made of.
WITH before AS (
    SELECT window_start, window_end, coalesce(seen, iif(json_valid(summary), json_extract(summary, '$.read_from'), NULL)) AS made_of
    FROM runs
    WHERE monitor = :monitor AND state = 'done' AND window_end < :before AND window_end - window_start = :length
    ORDER BY window_end DESC LIMIT :limit
)
SELECT window_start, window_end, made_of FROM before
WHERE made_of IS NOT NULL AND window_end >= (SELECT max(window_end) FROM before WHERE made_of IS NOT NULL) - :lateness
ORDER BY window_end DESC;

-- name: reopen
-- A finished window is to be judged again.
UPDATE runs SET reopened = 0
WHERE monitor = :monitor AND window_start = :start AND window_end = :end AND state = 'done' AND reopened IS NULL
    AND failures < :most;

-- name: reopened
-- Of every monitor the oldest finished window that is to be judged again; its attempts are those to do that.
SELECT id, monitor, window_start, min(window_end), state, reopened AS attempts FROM runs WHERE reopened IS NOT NULL GROUP BY monitor;

-- name: start_again
-- A finished window is being judged again.
UPDATE runs SET reopened = reopened + 1 WHERE id = :run AND reopened IS NOT NULL;

-- name: give_back_again
-- That was stopped through no fault of its own.
UPDATE runs SET reopened = max(0, reopened - 1) WHERE id = :run AND reopened IS NOT NULL;

-- name: revise
-- What was found when a finished window was judged again; whatever it was, that is done.
UPDATE runs SET verdict = :verdict, summary = :summary, result = :result, reopened = NULL, seen = NULL, failures = 0, revised = revised + 1
WHERE id = :run AND reopened IS NOT NULL;

-- name: leave
-- A finished window stays as it was judged; what it is made of now needs no further look.
UPDATE runs SET reopened = NULL, seen = coalesce(:seen, seen), failures = iif(:failed, failures + 1, 0) WHERE id = :run;

-- name: leave_others
-- So do those of a monitor that are not of a length.
UPDATE runs SET reopened = NULL WHERE monitor = :monitor AND reopened IS NOT NULL AND window_end - window_start <> :length;

-- name: leave_poisonous
-- Finished windows that were being judged again each time the process died stay as they were judged.
UPDATE runs SET reopened = NULL, failures = :max_attempts WHERE reopened >= :max_attempts;

-- name: start
-- A due run begins.
UPDATE runs SET state = 'running', attempts = attempts + 1, started = :now WHERE id = :run AND state = 'due';

-- name: give_back
-- A run was stopped through no fault of its own.
UPDATE runs SET state = 'due', attempts = max(0, attempts - 1) WHERE id = :run AND state = 'running';

-- name: requeue
-- Runs that died with their process become due again.
UPDATE runs SET state = 'due' WHERE state = 'running' AND attempts < :max_attempts;

-- name: running
-- Runs marked as running.
SELECT id, monitor, window_start, window_end, state, attempts FROM runs WHERE state = 'running' ORDER BY id;

-- name: history
-- Verdicts of finished windows before a time, newest first.
SELECT verdict FROM runs WHERE monitor = :monitor AND state = 'done' AND window_end < :before
ORDER BY window_end DESC LIMIT :limit;

-- name: state_of_run
-- Where a run stands.
SELECT state FROM runs WHERE id = :run;

-- name: finish
-- Record the result of a run that is not done yet.
UPDATE runs SET state = 'done', finished = :now, verdict = :verdict, summary = :summary, result = :result
WHERE id = :run AND state IN ('due', 'running');

-- name: fill
-- A window of the past with its result, unless it has one; no daemon evaluated it, so there was no attempt.
INSERT INTO runs (monitor, window_start, window_end, state, finished, verdict, summary, result)
VALUES (:monitor, :start, :end, 'done', :now, :verdict, :summary, :result)
ON CONFLICT DO UPDATE SET state = 'done', attempts = 0, finished = excluded.finished, verdict = excluded.verdict,
    summary = excluded.summary, result = excluded.result
WHERE state <> 'done';

-- name: judged_ends
-- Where the finished windows of a monitor end.
SELECT DISTINCT window_end FROM runs WHERE monitor = :monitor AND state = 'done' ORDER BY window_end;

-- name: result
-- What is kept of the result of a run.
SELECT id, summary, result FROM runs WHERE id = :run AND state = 'done';

-- name: summaries
-- The newest finished windows of a monitor.
SELECT id, summary, NULL FROM runs WHERE monitor = :monitor AND state = 'done' ORDER BY window_end DESC LIMIT :limit;

-- name: run_of
-- The finished run of the window that ends at a time.
SELECT id FROM runs WHERE monitor = :monitor AND state = 'done' AND window_end = :end ORDER BY window_start DESC LIMIT 1;

-- name: put_episode
-- The new state of an episode.
INSERT INTO episodes (id, monitor, lane, opened, closed, stored, body)
VALUES (:id, :monitor, :lane, :opened, :closed, :now, :body)
ON CONFLICT (id) DO UPDATE SET opened = excluded.opened, closed = excluded.closed, stored = excluded.stored,
    body = excluded.body;

-- name: newest_episode
-- The newest episode of a lane, open or closed, that had opened by a time.
SELECT id, body FROM episodes WHERE monitor = :monitor AND lane = :lane AND opened <= coalesce(:by, opened)
ORDER BY opened DESC, rowid DESC LIMIT 1;

-- name: episodes
-- Episodes of one monitor or of all, newest first.
SELECT id, body FROM episodes WHERE :monitor IS NULL OR monitor = :monitor ORDER BY opened DESC, rowid DESC LIMIT :limit;

-- name: open_episodes
-- Episodes that are not closed, oldest first.
SELECT id, body FROM episodes WHERE closed IS NULL ORDER BY opened, rowid;

-- name: put_message
-- A message for a receiver unless it is there; dead at once when the receiver is disabled.
INSERT INTO outbox (receiver, event_id, type, grp, body, state, created, next_attempt, last_error)
SELECT :receiver, :event_id, :type, :group, :body, iif(off.reason IS NULL, 'pending', 'dead'), :now,
    iif(off.reason IS NULL, :now, NULL), off.reason
FROM (SELECT 1) LEFT JOIN receivers_disabled AS off ON off.receiver = :receiver
WHERE true
ON CONFLICT DO NOTHING
RETURNING state;

-- name: next_delivery
-- The delivery to attempt now: first of its group, and never tried, past its time, or so far ahead that a clock was set back.
SELECT id, event_id, receiver, type, grp, body, attempts, state, created, next_attempt, last_error
FROM outbox AS head
WHERE state = 'pending' AND receiver IN (SELECT value FROM json_each(:receivers))
    AND (attempts = 0 OR next_attempt <= :now OR next_attempt > :furthest)
    AND NOT EXISTS (
        SELECT 1 FROM outbox AS earlier
        WHERE earlier.state = 'pending' AND earlier.receiver = head.receiver AND earlier.grp = head.grp
            AND earlier.id < head.id)
ORDER BY next_attempt, id LIMIT 1;

-- name: next_attempt_at
-- The earliest time at which the first message of some group may be tried.
SELECT min(next_attempt)
FROM outbox AS head
WHERE state = 'pending' AND receiver IN (SELECT value FROM json_each(:receivers))
    AND NOT EXISTS (
        SELECT 1 FROM outbox AS earlier
        WHERE earlier.state = 'pending' AND earlier.receiver = head.receiver AND earlier.grp = head.grp
            AND earlier.id < head.id);

-- name: receiver_of
-- Whom a delivery is for.
SELECT receiver FROM outbox WHERE id = :id;

-- name: delivered
-- An attempt succeeded.
UPDATE outbox SET state = 'delivered', attempts = attempts + 1, next_attempt = NULL, begun = NULL, finished = :now,
    last_error = NULL
WHERE id = :id;

-- name: last_success
-- When a receiver last took a message.
INSERT INTO outbox_last_success (receiver, at) VALUES (:receiver, :now)
ON CONFLICT (receiver) DO UPDATE SET at = excluded.at;

-- name: retry_at
-- An attempt failed and will be repeated.
UPDATE outbox SET attempts = attempts + 1, next_attempt = :when, begun = NULL, last_error = :error
WHERE id = :id AND state = 'pending';

-- name: bury
-- An attempt failed and was the last.
UPDATE outbox SET state = 'dead', attempts = attempts + 1, next_attempt = NULL, begun = NULL, last_error = :error
WHERE id = :id AND state = 'pending';

-- name: begin_attempt
-- An attempt that must not be repeated blindly begins.
UPDATE outbox SET begun = :now WHERE id = :id AND state = 'pending';

-- name: bury_begun
-- Attempts that died with their process, so that nobody knows whether they arrived.
UPDATE outbox SET state = 'dead', attempts = attempts + 1, next_attempt = NULL, begun = NULL, last_error = :error
WHERE state = 'pending' AND begun IS NOT NULL
RETURNING receiver;

-- name: bury_all
-- Whatever waits for a receiver is dead.
UPDATE outbox SET state = 'dead', next_attempt = NULL, last_error = :reason
WHERE receiver = :receiver AND state = 'pending';

-- name: disable_receiver
-- A receiver gets no more messages.
INSERT INTO receivers_disabled (receiver, since, reason) VALUES (:receiver, :now, :reason)
ON CONFLICT (receiver) DO UPDATE SET reason = excluded.reason;

-- name: enable_receiver
-- The receiver of a delivery gets messages again.
DELETE FROM receivers_disabled WHERE receiver = (SELECT receiver FROM outbox WHERE id = :id);

-- name: disabled_receivers
-- Receivers that get no messages, and why.
SELECT receiver, reason FROM receivers_disabled ORDER BY receiver;

-- name: deliveries
-- Outbox rows of one state or of all, oldest first.
SELECT id, event_id, receiver, type, grp, body, attempts, state, created, next_attempt, last_error
FROM outbox WHERE :state IS NULL OR state = :state ORDER BY id LIMIT :limit;

-- name: replay
-- A dead or pending delivery is due now with a fresh schedule.
UPDATE outbox SET state = 'pending', attempts = 0, next_attempt = :now
WHERE id = :id AND state IN ('dead', 'pending');

-- name: drop
-- Forget a delivery that has not arrived.
DELETE FROM outbox WHERE id = :id AND state IN ('dead', 'pending');

-- name: count
-- Add to a counter.
INSERT INTO counters (name, labels, value) VALUES (:name, :labels, :by)
ON CONFLICT (name, labels) DO UPDATE SET value = value + excluded.value;

-- name: counters
-- Every counter.
SELECT name, labels, value FROM counters;

-- name: histogram
-- One histogram.
SELECT bounds, counts, total FROM histograms WHERE name = :name AND labels = :labels;

-- name: put_histogram
-- The new state of a histogram.
INSERT OR REPLACE INTO histograms (name, labels, bounds, counts, total)
VALUES (:name, :labels, :bounds, :counts, :total);

-- name: histograms
-- Every histogram.
SELECT name, labels, bounds, counts, total FROM histograms;

-- name: put_exemplar
-- The run that a counter or a bucket counted last.
INSERT OR REPLACE INTO exemplars (name, labels, bucket, run, value, at)
VALUES (:name, :labels, :bucket, :run, :value, :at);

-- name: drop_exemplars
-- A histogram starts anew.
DELETE FROM exemplars WHERE name = :name AND labels = :labels;

-- name: exemplars
-- Every exemplar.
SELECT name, labels, run, value, at FROM exemplars ORDER BY name, labels, bucket;

-- name: judged_run
-- The newest run of a monitor that was judged.
SELECT id, revised FROM runs WHERE monitor = :monitor AND state = 'done' AND verdict IN ('ok', 'drift', 'broken')
ORDER BY window_end DESC LIMIT 1;

-- name: latest
-- By monitor: the newest finished run, the newest judged one, and when (by its clock) the daemon ended the last of each.
WITH RECURSIVE monitors (monitor) AS (  -- one index probe a monitor, however many runs there are
    SELECT min(monitor) FROM runs
    UNION ALL
    SELECT (SELECT min(monitor) FROM runs WHERE monitor > monitors.monitor) FROM monitors
    WHERE monitors.monitor IS NOT NULL
)
SELECT monitor,
    (SELECT id FROM runs WHERE monitor = monitors.monitor AND state = 'done' ORDER BY window_end DESC LIMIT 1),
    (SELECT id FROM runs WHERE monitor = monitors.monitor AND state = 'done'
        AND verdict IN ('ok', 'drift', 'broken') ORDER BY window_end DESC LIMIT 1),
    (SELECT finished FROM runs WHERE monitor = monitors.monitor AND state = 'done' AND attempts > 0
        ORDER BY finished DESC LIMIT 1),
    (SELECT finished FROM runs WHERE monitor = monitors.monitor AND state = 'done' AND attempts > 0
        AND verdict IN ('ok', 'drift', 'broken') ORDER BY finished DESC LIMIT 1)
FROM monitors WHERE monitor IS NOT NULL;

-- name: outbox_totals
-- By receiver and state: how many messages, and when the oldest was made.
SELECT receiver, state, count(*), min(created) FROM outbox GROUP BY receiver, state;

-- name: last_successes
-- When each receiver last took a message.
SELECT receiver, at FROM outbox_last_success;

-- name: purge_runs
-- Finished runs past their time, except the newest and the newest judged of each monitor.
DELETE FROM runs WHERE state = 'done' AND finished < :before AND id NOT IN (SELECT value FROM json_each(:keep));

-- name: purge_due
-- Windows that wait for monitors which are watched no more; the schedule enters them again should one come back.
DELETE FROM runs WHERE state = 'due' AND monitor NOT IN (SELECT value FROM json_each(:monitors));

-- name: purge_results
-- All but the summary of results past their time, except those that metrics and pages are drawn from.
UPDATE runs SET result = NULL
WHERE result IS NOT NULL AND finished < :before AND id NOT IN (SELECT value FROM json_each(:keep));

-- name: purge_missed
-- Missed windows before a finished one that is past its time.
DELETE FROM runs WHERE state = 'missed' AND window_end < (
    SELECT max(old.window_end) FROM runs AS old
    WHERE old.monitor = runs.monitor AND old.state = 'done' AND old.finished < :before);

-- name: purge_episodes
-- Episodes past their time: of a monitor that is watched only closed ones, and never the newest of a lane, which its cooldown may need.
DELETE FROM episodes WHERE stored < :before AND (
    monitor NOT IN (SELECT value FROM json_each(:monitors))
    OR closed IS NOT NULL AND EXISTS (
        SELECT 1 FROM episodes AS later WHERE later.monitor = episodes.monitor AND later.lane = episodes.lane
            AND later.opened > episodes.opened));

-- name: purge_delivered
-- Delivered messages past their time.
DELETE FROM outbox WHERE state = 'delivered' AND finished < :before;

-- name: put_retraining
-- A new retraining, unless its cause has one or another is under way.
INSERT INTO retrainings (id, monitor, episode, state, created, changed, body)
VALUES (:id, :monitor, :episode, :state, :created, :changed, :body)
ON CONFLICT DO NOTHING;

-- name: move_retraining
-- The new state of a retraining.
UPDATE retrainings SET state = :state, changed = :changed, body = :body WHERE id = :id;

-- name: resume_retraining
-- One that was withheld is prepared anew.
UPDATE retrainings SET state = 'preparing', changed = :changed, body = :body WHERE id = :id AND state = 'withheld';

-- name: open_drift
-- The open drift episodes of a monitor.
SELECT body FROM episodes WHERE monitor = :monitor AND lane = 'drift' AND closed IS NULL;

-- name: busy_retraining
-- The retraining of a monitor that is under way.
SELECT id FROM retrainings WHERE monitor = :monitor AND id <> :id
    AND (state IN ('preparing', 'proposed', 'approved', 'sent', 'running', 'trained')
        OR (state = 'live' AND NOT json_extract(body, '$.settled')));

-- name: newest_verdict
-- The verdict of the newest window of a monitor that was judged.
SELECT verdict FROM runs WHERE monitor = :monitor AND state = 'done' AND verdict IN ('ok', 'drift', 'broken')
    ORDER BY window_end DESC LIMIT 1;

-- name: retraining
-- One retraining by its id, or by how that begins.
SELECT id, body FROM retrainings WHERE substr(id, 1, length(:id)) = :id ORDER BY created DESC, id LIMIT 2;

-- name: retrainings
-- Retrainings of one monitor or of all, newest first.
SELECT id, body FROM retrainings WHERE :monitor IS NULL OR monitor = :monitor
ORDER BY created DESC, rowid DESC LIMIT :limit;

-- name: active_retrainings
-- Those that something is left to do for, oldest first.
SELECT id, body FROM retrainings WHERE state IN ('preparing', 'proposed', 'approved', 'sent', 'running', 'trained', 'live')
ORDER BY created, rowid;

-- name: newest_retrainings
-- The newest retraining of every monitor.
SELECT id, body FROM (SELECT id, body, row_number() OVER (PARTITION BY monitor ORDER BY created DESC, rowid DESC) AS n
    FROM retrainings) WHERE n = 1;

-- name: episode
-- An episode by its id.
SELECT id, body FROM episodes WHERE id = :id;

-- name: state_of_message
-- How a message to a receiver fares.
SELECT state, last_error FROM outbox WHERE receiver = :receiver AND event_id = :event_id;

-- name: purge_retrainings
-- Retrainings that ended long ago, but not while their episode is known, which would cause another; and those of
-- monitors that are no more.
DELETE FROM retrainings WHERE changed < :before
    AND ((state NOT IN ('preparing', 'proposed', 'approved', 'sent', 'running', 'trained', 'live')
            AND (episode IS NULL OR episode NOT IN (SELECT id FROM episodes)))
        OR monitor NOT IN (SELECT value FROM json_each(:monitors)));
