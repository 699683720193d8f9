"""What all unit tests share: how hypothesis draws, and a watch over the feed's threads."""

import os
import time

import pytest
from hypothesis import settings

from tests.unit.petastorm_threads import petastorm_threads

# The machines are shared, so time says nothing of an example. Where nobody watches, the same examples each run.
settings.register_profile("sparkcnn", deadline=None, derandomize="CI" in os.environ, database=None)
settings.load_profile("sparkcnn")


@pytest.fixture
def no_thread_is_left():
    """Fails a test that leaves a thread of the feed's behind."""
    before = petastorm_threads()
    yield
    # Threads that read footers are not waited for: nobody needs what they bring after an error.
    until = time.monotonic() + 5
    while petastorm_threads() != before and time.monotonic() < until:
        time.sleep(0.01)
    assert petastorm_threads() == before
