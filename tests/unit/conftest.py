"""What all unit tests share: how hypothesis draws."""

import os

from hypothesis import settings

# The machines are shared, so time says nothing of an example. Where nobody watches, the same examples each run.
settings.register_profile("sparkcnn", deadline=None, derandomize="CI" in os.environ, database=None)
settings.load_profile("sparkcnn")
