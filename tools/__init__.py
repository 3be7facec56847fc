"""What makes documents from the project itself. Nothing here is needed to run it."""
