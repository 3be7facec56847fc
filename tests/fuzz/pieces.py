"""How the octets of a stream arrive: whole, one by one, at random, or cut at each line end and dot."""

from __future__ import annotations

import random
from collections.abc import Iterator


def cut(octets: bytes, manner: int, seed: int) -> Iterator[bytes]:
    """Give the pieces of a stream. `manner` is one of four."""
    match manner % 4:
        case 0:
            if octets:
                yield octets
        case 1:
            for at in range(len(octets)):
                yield octets[at : at + 1]
        case 2:
            dice = random.Random(seed)
            at = 0
            while at < len(octets):
                size = dice.choice((1, 2, 3, 5, 17, 200, 5000))
                yield octets[at : at + size]
                at += size
        case 3:
            begin = 0
            for at, octet in enumerate(octets):
                if octet in b"\r\n.":
                    if at > begin:
                        yield octets[begin:at]
                    yield octets[at : at + 1]
                    begin = at + 1
            if begin < len(octets):
                yield octets[begin:]
