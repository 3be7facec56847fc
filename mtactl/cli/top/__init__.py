"""mtactl top: a live screen.

`rates`, `snapshot`, `follower`, `drawing` and `tables` read and draw, and know nothing of textual; the others do.
"""
