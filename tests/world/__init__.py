"""The world around the daemon: sources, sinks, name servers, and people at terminals."""
