"""Where messages go. One file a receiver, one line here."""
