"""The room that is watched from outside."""
