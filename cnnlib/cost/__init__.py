"""Parameters, multiply-adds, memory and time of a model, without running it."""
