"""Figures, as ratios against a peer run in the same minute."""
