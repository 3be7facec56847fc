"""One run of libFuzzer, guided by the coverage of our modules: `python -m tests.fuzz.guided TARGET ARGUMENTS...`.

The arguments are libFuzzer's. It ends with an exit status other than 0 at the first input that fails.
"""

from __future__ import annotations

import importlib
import sys

import atheris


def main() -> None:
    name, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=["mtactl.edge", "mtactl.message", "mtactl.relay"]):
        target = importlib.import_module(f"tests.fuzz.{name}")
    atheris.Setup([sys.argv[0], *arguments], target.check, enable_python_coverage=True)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
