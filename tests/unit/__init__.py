"""One module at a time, no sockets but the module's own."""
