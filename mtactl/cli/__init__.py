"""The client mtactl: one file a verb, mirroring the control API."""
