"""Coverage-guided fuzzing: see `make fuzz`. Not run by pytest."""
