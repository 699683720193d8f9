"""A task's share of a scoring, and what predictions say beside the training and earlier scorings."""
