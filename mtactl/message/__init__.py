"""Values of the mail trade: replies, envelopes, headers. Pure: no I/O, no clock."""
