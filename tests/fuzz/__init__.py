"""Fuzz targets: what takes octets of strangers apart, against slow and plain second opinions.

A target is a module with `check(data)`, which raises AssertionError when something is wrong with what was made of some
octets, `SEEDS` to begin with, and `WORDS` that a stranger may use. `make fuzz` runs them guided by coverage;
test_fuzz.py runs a short form of each. Inputs that once failed are kept in `found/`, and are run again by both.
"""
