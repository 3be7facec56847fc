"""Gate, halt, ledger, report: what a campaign is and what stops it. Pure: no I/O, no clock of its own."""
