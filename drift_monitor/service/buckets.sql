-- What was read of one monitor's source, by bucket of event time. It can be deleted at any time: it is read again.
CREATE TABLE IF NOT EXISTS used (
  layout TEXT PRIMARY KEY,
  at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS units (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  layout TEXT NOT NULL,
  identity BLOB NOT NULL,
  since INTEGER,      -- parts before this were deleted; null when all are there
  first INTEGER,      -- bucket, microseconds since 1970; null without rows that have a time
  last INTEGER,
  invalid TEXT NOT NULL,   -- JSON: [first bucket, last bucket, rows without a usable time] of batches that have some
  scattered INTEGER NOT NULL,   -- over too many buckets: read anew for each window
  UNIQUE (layout, identity)
) STRICT;
CREATE TABLE IF NOT EXISTS parts (
  unit INTEGER NOT NULL REFERENCES units ON DELETE CASCADE,
  start INTEGER NOT NULL,
  digest BLOB NOT NULL,   -- of the profile, and before it: what follows a large blob is slow to find
  profile BLOB NOT NULL,
  PRIMARY KEY (unit, start)   -- with rowids: else a search copies every blob that it compares
) STRICT;
CREATE INDEX IF NOT EXISTS parts_by_start ON parts (start);
CREATE TABLE IF NOT EXISTS merged (
  layout TEXT NOT NULL,
  width INTEGER NOT NULL,
  start INTEGER NOT NULL,
  parts BLOB NOT NULL,   -- hash of the parts that are in it
  profile BLOB NOT NULL,
  PRIMARY KEY (layout, width, start)
) STRICT;
CREATE TABLE IF NOT EXISTS schemas (
  id INTEGER PRIMARY KEY,
  content BLOB NOT NULL UNIQUE
) STRICT;
CREATE TABLE IF NOT EXISTS footers (
  file BLOB PRIMARY KEY,
  schema INTEGER NOT NULL REFERENCES schemas,
  row_groups TEXT NOT NULL   -- JSON: [rows, oldest, newest] of each
) STRICT, WITHOUT ROWID;
