"""Who maps splits to profiles and merges them. One file an executor, one line here."""
