"""The decoder and classifier that this model was sealed with."""
