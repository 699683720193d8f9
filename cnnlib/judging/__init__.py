"""How good a model is, and whether it may become champion: metrics, an evaluation, gates."""
