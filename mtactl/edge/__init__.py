"""SMTP in: the listener, the session and the way into the queue. aiosmtpd is met here and nowhere else."""
