"""The ring of processes that adds arrays up: exact, equal everywhere, closed to strangers, never waiting for ever."""

import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnlib.training import ring
from cnnlib.training.ring import Ring, RingBroken

TOKEN = b"known to all"


def around(count: int, work: Callable[[int, Ring], object], visit: Callable[[int], None] = lambda port: None) -> list:
    """What `work` gives at each place of a ring of threads. `visit` is called with each port before it is formed."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{listener.getsockname()[1]}" for listener in listeners]
    for listener in listeners:
        visit(listener.getsockname()[1])

    def at(place: int) -> object:
        formed = Ring(place, addresses, listeners[place], TOKEN)
        try:
            return work(place, formed)
        finally:
            formed.close()
            listeners[place].close()

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(at, range(count)))


@given(count=st.integers(2, 5), length=st.integers(0, 20), seed=st.integers(0, 99))
def test_everyone_gets_the_sum(count, length, seed):
    arrays = np.random.default_rng(seed).integers(-1000, 1000, (count, length)).astype(np.float64)

    def add_up(place: int, formed: Ring) -> np.ndarray:
        own = arrays[place].copy()
        formed.add_up(own)
        return own

    for got in around(count, add_up):
        np.testing.assert_array_equal(got, arrays.sum(axis=0))


def test_everyone_gets_the_mean_of_arrays_of_any_size_and_type_in_turn():
    sizes = [(10, np.float64), (3, np.float32), (70_000, np.float32), (9, np.float64)]
    arrays = [np.random.default_rng(0).integers(-99, 99, (3, size)).astype(dtype) for size, dtype in sizes]

    def average(place: int, formed: Ring) -> list[np.ndarray]:
        own = [array[place].copy() for array in arrays]
        for array in own:
            formed.average(array)
        return own

    first, *others = around(3, average)
    for got, array in zip(first, arrays, strict=True):
        np.testing.assert_allclose(got, array.mean(axis=0), rtol=1e-6)
        assert got.dtype == array.dtype
    assert [[array.tobytes() for array in other] for other in others] == 2 * [[array.tobytes() for array in first]]


def test_floats_that_depend_on_the_order_have_the_same_bits_everywhere():
    # Longer than all buffers on the way, so that everyone must send and receive at once.
    arrays = np.random.default_rng(0).normal(size=(3, 5_000_000)).astype(np.float32)

    def add_up_twice(place: int, formed: Ring) -> bytes:
        own = arrays[place].copy()
        formed.add_up(own)
        formed.add_up(own)
        return own.tobytes()

    first, *others = around(3, add_up_twice)
    assert others == [first, first]
    np.testing.assert_allclose(np.frombuffer(first, np.float32), 3 * arrays.sum(axis=0), atol=1e-4)


def test_place_that_hangs_up_breaks_the_ring_at_once():
    def work(place: int, formed: Ring) -> str:
        if place == 1:
            return "gone"
        try:
            while True:
                formed.add_up(np.ones(1000))
        except RingBroken as error:
            return str(error)

    zero, _, two = around(3, work)
    assert all("another worker" in told for told in (zero, two))


def test_place_that_says_nothing_breaks_the_ring_in_time(monkeypatch):
    monkeypatch.setattr(ring, "TIMEOUT_S", 0.5)
    over = threading.Event()

    def work(place: int, formed: Ring) -> None:
        if place == 1:
            over.wait(30)
            return
        with pytest.raises(RingBroken, match=r"did not answer for 0\.5 s"):
            formed.add_up(np.ones(4))
        over.set()

    around(2, work)
    assert over.is_set()


def test_strangers_are_not_taken_for_neighbours(monkeypatch):
    monkeypatch.setattr("cnnlib.training.ring._GREETING_TIMEOUT_S", 0.2)
    strangers = []

    def visit(port: int) -> None:
        # One looks whether the port can be reached, one talks.
        socket.create_connection(("127.0.0.1", port)).close()
        talking = socket.create_connection(("127.0.0.1", port))
        talking.sendall(b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n")
        # One breaks the line off, and one says nothing.
        breaking = socket.create_connection(("127.0.0.1", port))
        breaking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        breaking.sendall(b"x")
        breaking.close()
        strangers.extend((talking, socket.create_connection(("127.0.0.1", port))))

    def add_up(place: int, formed: Ring) -> float:
        own = np.array([float(place + 1)])
        formed.add_up(own)
        return float(own[0])

    assert around(2, add_up, visit) == [3.0, 3.0]
    for stranger in strangers:
        stranger.close()
