"""All that talks to MLflow: the store, runs, the model registry and its aliases."""
