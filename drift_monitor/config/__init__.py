"""The configuration: models without I/O, and a reader that reports every error with its place."""
