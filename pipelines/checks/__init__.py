"""What `sparkcnn doctor` checks, a file each for what can be wrong."""
