"""Reports for people: pages that are one file each, without scripts, network or other files; and figures."""

# Imports neither TensorFlow nor MLflow: tests/unit/test_import_rules.py reads this.
LIGHT_BUT_FOR = ()
