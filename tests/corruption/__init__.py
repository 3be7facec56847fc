"""Damaged stores: what is promised of them, tried at random."""
