"""The ring of processes that sums arrays: exact, equal everywhere, closed to strangers, and never stuck."""

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
    """Run `work` in each thread of a ring, and return the results. `visit` is called with each port beforehand."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{listener.getsockname()[1]}" for listener in listeners]
    for listener in listeners:
        visit(listener.getsockname()[1])

    def run(rank: int) -> object:
        formed = Ring(rank, addresses, listeners[rank], TOKEN)
        try:
            return work(rank, formed)
        finally:
            formed.close()
            listeners[rank].close()

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count)))


@given(count=st.integers(2, 5), length=st.integers(0, 20), seed=st.integers(0, 99))
def test_everyone_gets_the_sum(count, length, seed):
    arrays = np.random.default_rng(seed).integers(-1000, 1000, (count, length)).astype(np.float64)

    def add_up(rank: int, formed: Ring) -> np.ndarray:
        own = arrays[rank].copy()
        formed.add_up(own)
        return own

    for got in around(count, add_up):
        np.testing.assert_array_equal(got, arrays.sum(axis=0))


def test_everyone_gets_the_mean_of_any_size_and_type():
    sizes = [(10, np.float64), (3, np.float32), (70_000, np.float32), (9, np.float64)]
    arrays = [np.random.default_rng(0).integers(-99, 99, (3, size)).astype(dtype) for size, dtype in sizes]

    def average(rank: int, formed: Ring) -> list[np.ndarray]:
        own = [array[rank].copy() for array in arrays]
        for array in own:
            formed.average(array)
        return own

    first, *others = around(3, average)
    for got, array in zip(first, arrays, strict=True):
        np.testing.assert_allclose(got, array.mean(axis=0), rtol=1e-6)
        assert got.dtype == array.dtype
    assert [[array.tobytes() for array in other] for other in others] == 2 * [[array.tobytes() for array in first]]


def test_sums_of_floats_have_the_same_bits_everywhere():
    # Longer than all buffers on the way, so every process must send and receive at the same time.
    arrays = np.random.default_rng(0).normal(size=(3, 5_000_000)).astype(np.float32)

    def add_up_twice(rank: int, formed: Ring) -> bytes:
        own = arrays[rank].copy()
        formed.add_up(own)
        formed.add_up(own)
        return own.tobytes()

    first, *others = around(3, add_up_twice)
    assert others == [first, first]
    np.testing.assert_allclose(np.frombuffer(first, np.float32), 3 * arrays.sum(axis=0), atol=1e-4)


def test_closed_connection_breaks_the_ring_at_once():
    def work(rank: int, formed: Ring) -> str:
        if rank == 1:
            return "gone"
        try:
            while True:
                formed.add_up(np.ones(1000))
        except RingBroken as error:
            return str(error)

    zero, _, two = around(3, work)
    assert all("another worker" in message for message in (zero, two))


def test_silent_process_breaks_the_ring_in_time(monkeypatch):
    monkeypatch.setattr(ring, "TIMEOUT_S", 0.5)
    over = threading.Event()

    def work(rank: int, formed: Ring) -> None:
        if rank == 1:
            over.wait(30)
            return
        with pytest.raises(RingBroken, match=r"did not answer for 0\.5 s"):
            formed.add_up(np.ones(4))
        over.set()

    around(2, work)
    assert over.is_set()


def test_strangers_are_not_accepted_as_neighbours(monkeypatch):
    monkeypatch.setattr("cnnlib.training.ring._GREETING_TIMEOUT_S", 0.2)
    strangers = []

    def visit(port: int) -> None:
        # One stranger checks whether the port can be reached. One talks.
        socket.create_connection(("127.0.0.1", port)).close()
        talking = socket.create_connection(("127.0.0.1", port))
        talking.sendall(b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n")
        # One resets the connection, and one says nothing.
        breaking = socket.create_connection(("127.0.0.1", port))
        breaking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        breaking.sendall(b"x")
        breaking.close()
        strangers.extend((talking, socket.create_connection(("127.0.0.1", port))))

    def add_up(rank: int, formed: Ring) -> float:
        own = np.array([float(rank + 1)])
        formed.add_up(own)
        return float(own[0])

    assert around(2, add_up, visit) == [3.0, 3.0]
    for stranger in strangers:
        stranger.close()
