"""The daemon that owns a mail server's outbound queue and can stop a campaign."""
