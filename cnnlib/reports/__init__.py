"""Reports: pages for people to look at, each one file that needs no other, no network and no script."""

# Imports neither TensorFlow nor MLflow: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ()
