"""The control API on the Unix socket. aiohttp is met here and nowhere else."""
