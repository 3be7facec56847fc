"""Logs, metrics, events and health."""
