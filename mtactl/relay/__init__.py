"""SMTP out: routes, TLS, sessions and the transaction protocol. aiosmtplib and dnspython are met here and nowhere else."""
