"""Training on Spark's workers: where its ranks are placed, how they are started, connected, watched and ended."""
