"""Inputs made from others by chance: what the short form of a target runs, where there is no coverage to guide it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence


def mutants(seeds: Sequence[bytes], words: Sequence[bytes], *, count: int, seed: int) -> Iterator[bytes]:
    """Give inputs, the same for the same seed."""
    dice = random.Random(seed)
    for _ in range(count):
        made = bytearray(dice.choice(seeds))
        for _ in range(dice.randint(1, 5)):
            at = dice.randrange(len(made) + 1)
            match dice.randrange(5):
                case 0 | 1:
                    made[at:at] = dice.choice(words)
                case 2:
                    del made[at : at + dice.randint(1, 20)]
                case 3:
                    made[at : at + 1] = bytes([dice.randrange(256)])
                case 4:
                    other = dice.choice(seeds)
                    begin = dice.randrange(len(other))
                    made[at:at] = other[begin : begin + dice.randint(1, 60)]
        yield bytes(made)
