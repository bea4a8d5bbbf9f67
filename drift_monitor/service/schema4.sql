-- Version 4: windows that were judged and are judged again, because their rows changed.

ALTER TABLE runs ADD COLUMN reopened INTEGER;  -- how often that was begun; null when nothing is to be judged again
ALTER TABLE runs ADD COLUMN seen TEXT;         -- what it was made of when it was last looked at, if not what its result says
ALTER TABLE runs ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;  -- second judgements in a row that failed
ALTER TABLE runs ADD COLUMN revised INTEGER NOT NULL DEFAULT 0;  -- how often its result was replaced
CREATE INDEX runs_reopened ON runs (monitor, window_end) WHERE reopened IS NOT NULL;
