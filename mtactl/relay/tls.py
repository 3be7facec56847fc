"""TLS contexts."""

from __future__ import annotations

import ssl

__all__ = ["opportunistic_context"]


def opportunistic_context() -> ssl.SSLContext:
    """Give a client's context that encrypts without asking who the peer is (RFC 7435 §3).

    TLS 1.2 at least (RFC 9325): a peer that has only older ones fails the handshake, and is spoken to in the clear.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
