"""What ingest does in Spark between a source and an image set."""
