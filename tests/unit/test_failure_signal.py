"""The failure signal between the tasks of a training: its receivers, strangers, and its end."""

import queue
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pipelines.train.workers.connections import address_of, host_and_port, listen
from pipelines.train.workers.failure_signal import FailureSignal

SECRET = "5ecret"
TIMEOUT_S = 20.0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    listener = listen("127.0.0.1", None)
    yield listener
    listener.close()


def failure_signals(listener: socket.socket, count: int) -> tuple[list[FailureSignal], queue.Queue]:
    """Return the signals of all tasks, and a queue of received failures: (receiving rank, first failed rank)."""
    received: queue.Queue = queue.Queue()
    address = address_of(listener)
    return [
        FailureSignal(
            rank, address, SECRET, None if rank else listener, lambda first, rank=rank: received.put((rank, first))
        )
        for rank in range(count)
    ], received


def test_all_receive_the_first_failure_once(listener: socket.socket) -> None:
    signals, received = failure_signals(listener, 3)
    signals[2].fail()
    found = [received.get(timeout=TIMEOUT_S) for _ in signals]
    # These ranks fail because they were stopped. Nobody needs to know.
    signals[0].fail()
    signals[1].fail()
    for signal in signals:
        signal.close()
    assert sorted(found) == [(0, 2), (1, 2), (2, 2)]
    assert received.empty()


def test_late_task_receives_an_earlier_failure(listener: socket.socket) -> None:
    (early,), received = failure_signals(listener, 1)
    early.fail()
    assert received.get(timeout=TIMEOUT_S) == (0, 0)
    late = FailureSignal(1, address_of(listener), SECRET, None, lambda first: received.put((1, first)))
    assert received.get(timeout=TIMEOUT_S) == (1, 0)
    late.close()
    early.close()


def test_messages_of_strangers_are_ignored(listener: socket.socket) -> None:
    signals, received = failure_signals(listener, 2)
    with socket.create_connection(host_and_port(address_of(listener))) as stranger:
        stranger.sendall(b"GET / HTTP/1.0\n0 0\n")
        signals[1].fail()
        assert received.get(timeout=TIMEOUT_S)[1] == 1
    for signal in signals:
        signal.close()


def test_closed_signals_leave_no_thread_and_no_port() -> None:
    listener = listen("127.0.0.1", None)
    _, port = host_and_port(address_of(listener))
    before = set(threading.enumerate())
    signals, _ = failure_signals(listener, 2)
    for signal in signals:
        signal.close()
    until = time.monotonic() + TIMEOUT_S
    while set(threading.enumerate()) - before and time.monotonic() < until:
        time.sleep(0.01)
    assert [thread.name for thread in set(threading.enumerate()) - before] == []
    listen("127.0.0.1", range(port, port + 1)).close()
