-- Version 2: the ledger of retrainings, and attempts that must not be repeated.

CREATE TABLE retrainings (
    id TEXT PRIMARY KEY,
    monitor TEXT NOT NULL,
    episode TEXT UNIQUE,       -- the cause has one retraining; null when a person asked for it
    state TEXT NOT NULL,
    created INTEGER NOT NULL,
    changed INTEGER NOT NULL,  -- the daemon's clock, for retention
    body TEXT NOT NULL         -- JSON of a Retraining
) STRICT;
CREATE INDEX retrainings_monitor ON retrainings (monitor, created);
CREATE UNIQUE INDEX retrainings_in_flight ON retrainings (monitor)
WHERE state IN ('preparing', 'proposed', 'approved', 'sent', 'running', 'trained');

ALTER TABLE outbox ADD COLUMN begun INTEGER;  -- an attempt that must not be repeated blindly is under way since then
