"""Rows that come to the daemon: parsed, made durable in a journal, and kept as the Parquet files of a spool."""
