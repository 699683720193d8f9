"""YAML files: one per job, and recipes. A file says only what differs from the defaults in `cnnlib.config`.

They are installed as the package `jobs.conf`, so that a zip or a wheel contains them.
"""
