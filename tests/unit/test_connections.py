"""Trying the way to many tasks: at the same time, and without their accepting anybody yet."""

import socket
import time

from pipelines.train.workers import failure_signal
from pipelines.train.workers.failure_signal import listen, unreachable_of


def address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"{host}:{port}"


def test_task_can_be_tried_by_more_than_a_hundred_others():
    with listen("127.0.0.1", None) as listener:
        assert unreachable_of([address_of(listener)] * 300) == {}


def test_only_what_cannot_be_reached_is_named_with_why():
    with listen("127.0.0.1", None) as listener:
        closed = listen("127.0.0.1", None)
        gone = address_of(closed)
        closed.close()
        problems = unreachable_of([address_of(listener), gone])
    assert list(problems) == [gone]
    assert "refused" in problems[gone]


def test_blocked_addresses_are_waited_for_together(monkeypatch):
    def never(address: str) -> str:
        time.sleep(0.5)
        return "timed out"

    monkeypatch.setattr(failure_signal, "unreachable", never)
    start = time.monotonic()
    assert len(unreachable_of([f"10.0.0.{number}:1" for number in range(30)])) == 30
    assert time.monotonic() - start < 5
