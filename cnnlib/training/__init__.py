"""Keras training: the training loop, its reports and its checkpoints."""
