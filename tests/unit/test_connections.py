"""Sockets between tasks: ports, addresses, and checking many addresses at once before anybody accepts."""

import time

import pytest

from pipelines.train.workers import connections
from pipelines.train.workers.connections import (
    address_of,
    connection_problem,
    connection_problems,
    host_and_port,
    listen,
)


def test_taken_port_is_skipped_and_a_full_range_is_named() -> None:
    taken = listen("127.0.0.1", range(40200, 40300))
    _, first = host_and_port(address_of(taken))
    other = listen("127.0.0.1", range(first, 40300))
    assert host_and_port(address_of(other))[1] > first
    with pytest.raises(OSError, match=f"none of the ports {first}-{first} is free"):
        listen("127.0.0.1", range(first, first + 1))
    taken.close()
    other.close()


def test_address_without_a_listener_is_unreachable() -> None:
    listener = listen("127.0.0.1", None)
    address = address_of(listener)
    assert connection_problem(address) == ""
    listener.close()
    assert "refused" in connection_problem(address)


def test_more_than_a_hundred_tasks_can_check_one_address() -> None:
    with listen("127.0.0.1", None) as listener:
        assert connection_problems([address_of(listener)] * 300) == {}


def test_only_unreachable_addresses_are_named_with_the_reason() -> None:
    with listen("127.0.0.1", None) as listener:
        closed = listen("127.0.0.1", None)
        gone = address_of(closed)
        closed.close()
        problems = connection_problems([address_of(listener), gone])
    assert list(problems) == [gone]
    assert "refused" in problems[gone]


def test_blocked_addresses_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def time_out(address: str) -> str:
        time.sleep(0.5)
        return "timed out"

    monkeypatch.setattr(connections, "connection_problem", time_out)
    start = time.monotonic()
    assert len(connection_problems([f"10.0.0.{number}:1" for number in range(30)])) == 30
    assert time.monotonic() - start < 5
