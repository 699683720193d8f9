"""What trainings with different settings come to, beside one another."""
