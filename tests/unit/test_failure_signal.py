"""The line among the tasks of a training: who hears of a failure, what counts as one, and what is left of it."""

import queue
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pipelines.train.workers.failure_signal import FailureSignal, address_of, host_and_port, listen, unreachable

SECRET = "5ecret"
TIMEOUT_S = 20.0


@pytest.fixture
def hub() -> Iterator[socket.socket]:
    listener = listen("127.0.0.1", None)
    yield listener
    listener.close()


def failure_signals(hub: socket.socket, count: int) -> tuple[list[FailureSignal], queue.Queue]:
    """Connected ends, and what they hear: (the one that heard it, the first that failed)."""
    heard: queue.Queue = queue.Queue()
    address = address_of(hub)
    return [
        FailureSignal(rank, address, SECRET, None if rank else hub, lambda first, rank=rank: heard.put((rank, first)))
        for rank in range(count)
    ], heard


def test_all_hear_who_failed_first_and_hear_it_once(hub: socket.socket) -> None:
    lines, heard = failure_signals(hub, 3)
    lines[2].fail()
    told = [heard.get(timeout=TIMEOUT_S) for _ in lines]
    # Those that fail because they were stopped are no news.
    lines[0].fail()
    lines[1].fail()
    for line in lines:
        line.close()
    assert sorted(told) == [(0, 2), (1, 2), (2, 2)]
    assert heard.empty()


def test_who_comes_after_a_failure_hears_of_it(hub: socket.socket) -> None:
    (early,), heard = failure_signals(hub, 1)
    early.fail()
    assert heard.get(timeout=TIMEOUT_S) == (0, 0)
    late = FailureSignal(1, address_of(hub), SECRET, None, lambda first: heard.put((1, first)))
    assert heard.get(timeout=TIMEOUT_S) == (1, 0)
    late.close()
    early.close()


def test_what_a_stranger_says_counts_for_nothing(hub: socket.socket) -> None:
    lines, heard = failure_signals(hub, 2)
    with socket.create_connection(host_and_port(address_of(hub))) as stranger:
        stranger.sendall(b"GET / HTTP/1.0\n0 0\n")
        lines[1].fail()
        assert heard.get(timeout=TIMEOUT_S)[1] == 1
    for line in lines:
        line.close()


def test_closed_lines_leave_no_thread_and_no_port() -> None:
    listener = listen("127.0.0.1", None)
    _, port = host_and_port(address_of(listener))
    before = set(threading.enumerate())
    lines, _ = failure_signals(listener, 2)
    for line in lines:
        line.close()
    until = time.monotonic() + TIMEOUT_S
    while set(threading.enumerate()) - before and time.monotonic() < until:
        time.sleep(0.01)
    assert [thread.name for thread in set(threading.enumerate()) - before] == []
    listen("127.0.0.1", range(port, port + 1)).close()


def test_a_taken_port_is_passed_over_and_a_range_without_any_is_named() -> None:
    taken = listen("127.0.0.1", range(40200, 40300))
    _, first = host_and_port(address_of(taken))
    other = listen("127.0.0.1", range(first, 40300))
    assert host_and_port(address_of(other))[1] > first
    with pytest.raises(OSError, match=f"none of the ports {first}-{first} is free"):
        listen("127.0.0.1", range(first, first + 1))
    taken.close()
    other.close()


def test_address_that_nobody_listens_at_is_unreachable() -> None:
    listener = listen("127.0.0.1", None)
    address = address_of(listener)
    assert unreachable(address) == ""
    listener.close()
    assert "refused" in unreachable(address)
