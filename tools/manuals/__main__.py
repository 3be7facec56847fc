"""Write the manual pages into a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.manuals import pages


def main() -> None:
    """Write them all; the folder is made if need be."""
    parser = argparse.ArgumentParser(prog="python -m tools.manuals", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, "ascii")


if __name__ == "__main__":
    main()
