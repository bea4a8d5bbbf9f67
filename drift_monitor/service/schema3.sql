-- Version 3: exemplars, so that a counter and a bucket can name a run that they counted.

CREATE TABLE exemplars (
    name TEXT NOT NULL,
    labels TEXT NOT NULL,     -- as in counters and histograms
    bucket INTEGER NOT NULL,  -- place of the histogram's bucket; 0 for a counter
    run INTEGER NOT NULL,     -- the newest that was counted here; it may be past its time in `runs`
    value REAL NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (name, labels, bucket)
) STRICT, WITHOUT ROWID;
