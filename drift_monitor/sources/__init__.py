"""Where live rows come from. One file a source, one line here."""
