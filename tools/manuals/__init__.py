"""The manual pages, made from what the programs themselves say: `python -m tools.manuals FOLDER`, or `make man`.

mtactl(1) comes from the client's tree of commands, mtactld(8) from the daemon's parser of its command line, and
mtactl.toml(5) from config/mtactl.toml with the settings' schema beside it. Only what a program can't say of itself (the
examples, the files, the signals) is written here.
"""

from __future__ import annotations

from collections.abc import Mapping

from tools.manuals.client import client_page
from tools.manuals.daemon import daemon_page
from tools.manuals.settings import settings_page

__all__ = ["pages"]


def pages() -> Mapping[str, str]:
    """Give each page by the name of its file."""
    return {"mtactl.1": client_page(), "mtactld.8": daemon_page(), "mtactl.toml.5": settings_page()}
