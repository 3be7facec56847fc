"""SMTP out: routes, TLS, sessions, the transaction protocol. aiosmtplib and dnspython are met here, nowhere else."""
