"""What a worker and an operator may rely on, whatever switch there is."""
