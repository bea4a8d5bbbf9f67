-- Version 4: windows that were judged and are judged again, because rows of them came late.

ALTER TABLE runs ADD COLUMN reopened INTEGER;  -- how often that was begun; null when nothing is to be judged again
CREATE INDEX runs_reopened ON runs (monitor, window_end) WHERE reopened IS NOT NULL;
