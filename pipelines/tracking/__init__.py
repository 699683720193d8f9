"""All that speaks to MLflow: runs under way and ended, the registry and its aliases."""
