"""Everything that imports petastorm: the bridge to current pyarrow, the thread pool, and the reader of row groups."""

# No module here imports TensorFlow or MLflow; tests/unit/test_import_rules.py checks this.
LIGHT_BUT_FOR = ()
