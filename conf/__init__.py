"""The settings files of the jobs, installed as `jobs.conf`: a package, so that a zip gives them too."""
