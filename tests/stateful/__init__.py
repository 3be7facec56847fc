"""Long random sequences of operations against a model (hypothesis)."""
