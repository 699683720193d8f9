"""What score needs besides a source: the model in a Python worker, and files that are new."""
