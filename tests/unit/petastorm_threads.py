"""Which threads are the feed's and petastorm's: those that must be gone when a reader is closed."""

import threading


def petastorm_threads() -> list[threading.Thread]:
    """petastorm's workers, and the threads, its own and the feed's, that hand row groups out to them."""
    return [
        thread
        for thread in threading.enumerate()
        if type(thread).__module__.startswith("petastorm")
        or "_ventilate" in thread.name
        or thread.name.startswith("sparkcnn-")
    ]
