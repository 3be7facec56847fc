"""Real sockets and real peers."""
