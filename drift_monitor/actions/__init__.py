"""What an episode asks for beyond a message."""
