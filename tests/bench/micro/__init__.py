"""The hot paths alone, by pytest-benchmark: `make bench-micro`. Figures, no verdict."""
