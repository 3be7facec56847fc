"""Processes killed at any point, and what the books say then."""
