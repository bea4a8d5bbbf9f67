"""What a cluster needs of us: the package on its workers, work that can be sent, and a session to send it by."""
