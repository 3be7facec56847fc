"""Programs that make what is shipped; none of them is needed to run mtactl."""
