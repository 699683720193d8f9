"""Keras training: the loop, what it tells, and the checkpoints it leaves."""
