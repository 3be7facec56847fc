"""A durable queue of mail recipients with exact books; it knows nothing of the daemon that uses it."""
