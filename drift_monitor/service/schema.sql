-- Version 1 of the state database. Times are microseconds since 1970-01-01 UTC.

CREATE TABLE runs (  -- the ledger of windows
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    monitor TEXT NOT NULL,
    window_start INTEGER NOT NULL,
    window_end INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('due', 'running', 'done', 'missed')),
    attempts INTEGER NOT NULL DEFAULT 0,
    started INTEGER,
    finished INTEGER,
    verdict TEXT,
    summary TEXT,  -- JSON of a CheckResult without its features and expectations
    result BLOB,   -- JSON of all of it, zlib, while it is kept
    UNIQUE (monitor, window_end, window_start),
    CHECK (state <> 'done' OR (finished IS NOT NULL AND verdict IS NOT NULL AND summary IS NOT NULL))
) STRICT;
CREATE INDEX runs_open ON runs (state) WHERE state IN ('due', 'running');
CREATE INDEX runs_done ON runs (monitor, window_end, verdict) WHERE state = 'done';
CREATE INDEX runs_finished ON runs (monitor, finished, verdict) WHERE state = 'done';
CREATE INDEX runs_kept_whole ON runs (finished) WHERE result IS NOT NULL;

CREATE TABLE episodes (
    id TEXT PRIMARY KEY,
    monitor TEXT NOT NULL,
    lane TEXT NOT NULL,
    opened INTEGER NOT NULL,
    closed INTEGER,
    stored INTEGER NOT NULL,  -- the daemon's clock, for retention
    body TEXT NOT NULL        -- JSON of an Episode
) STRICT;
CREATE INDEX episodes_lane ON episodes (monitor, lane, opened);
CREATE INDEX episodes_open ON episodes (monitor) WHERE closed IS NULL;

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    receiver TEXT NOT NULL,
    event_id TEXT NOT NULL,
    type TEXT NOT NULL,
    grp TEXT NOT NULL,  -- messages of one group are delivered in order of id
    body BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dead')),
    attempts INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    next_attempt INTEGER,
    finished INTEGER,
    last_error TEXT,
    UNIQUE (receiver, event_id),
    CHECK ((state = 'pending') = (next_attempt IS NOT NULL))
) STRICT;
CREATE INDEX outbox_pending ON outbox (receiver, grp, id) WHERE state = 'pending';
CREATE INDEX outbox_state ON outbox (state, receiver, created);

CREATE TABLE receivers_disabled (
    receiver TEXT PRIMARY KEY,
    since INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT;

CREATE TABLE outbox_last_success (
    receiver TEXT PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT;

CREATE TABLE counters (
    name TEXT NOT NULL,
    labels TEXT NOT NULL,  -- JSON, keys sorted
    value REAL NOT NULL,
    PRIMARY KEY (name, labels)
) STRICT, WITHOUT ROWID;

CREATE TABLE histograms (
    name TEXT NOT NULL,
    labels TEXT NOT NULL,
    bounds TEXT NOT NULL,  -- JSON: upper bounds without +Inf
    counts TEXT NOT NULL,  -- JSON: one more than bounds, not cumulative
    total REAL NOT NULL,   -- sum of the observed values
    PRIMARY KEY (name, labels)
) STRICT, WITHOUT ROWID;
