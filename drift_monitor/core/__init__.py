"""The deciding half: pure functions of values. No clock, file, socket, log or global random state."""
