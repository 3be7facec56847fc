"""The tests, by kind. Each says what would break if it failed."""
