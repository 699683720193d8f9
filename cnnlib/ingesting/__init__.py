"""Making an image set, without Spark: a task's share of the work, the ledger of all images, and its sums."""
