"""Find the threads of the feed and of petastorm: none of them may outlive its reader."""

import threading


def petastorm_threads() -> list[threading.Thread]:
    """List petastorm's workers and all threads that hand row groups out to them, petastorm's own and the feed's."""
    return [
        thread
        for thread in threading.enumerate()
        if type(thread).__module__.startswith("petastorm")
        or "_ventilate" in thread.name
        or thread.name.startswith("sparkcnn-")
    ]
