"""Adding arrays up over processes: a ring all-reduce over TCP.

Each process sends to the next and receives from the one before. An array is cut into as many parts as there are
processes; in p - 1 turns the sums of the parts are formed on the way round, in p - 1 more they are handed on, so each
process sends 2 (p - 1) / p of the array, whatever p is (Patarasu and Yuan, "Bandwidth optimal all-reduce algorithms for
clusters of workstations", 2009). The sum of a part is formed in one place, so all processes have the same bits.
"""

import hmac
import select
import socket
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

# A process may wait for others while they load or trace, or publish what they have; one that is dead is noticed at
# once, by its socket.
TIMEOUT_S = 3600.0
# A neighbour greets as soon as it has connected.
_GREETING_TIMEOUT_S = 10.0
_TOKEN_BYTES = 32
_SOCKET_BUFFER_BYTES = 4 * 2**20


class RingBroken(Exception):
    """Another process is gone, or did not answer for `TIMEOUT_S` seconds."""


class Ring:
    """One process's place in the ring. Made on all of them, it waits until its neighbours have come.

    `listener` is a socket that listens at this process's own address, `addresses` ("host:port") are those of all, in
    order. `token`, the same for all, keeps strangers out.
    """

    def __init__(self, place: int, addresses: Sequence[str], listener: socket.socket, token: bytes) -> None:
        self._place = place
        self._count = len(addresses)
        host, port = addresses[(place + 1) % self._count].rsplit(":", 1)
        self._next = socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S)
        self._next.sendall(_greeting(token))
        self._previous = _accept(listener, token)
        for line in (self._next, self._previous):
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER_BYTES)
            line.setblocking(False)
        self._received = np.empty(0)

    def add_up(self, array: np.ndarray) -> None:
        """Replace a flat array, of the same length and type everywhere, by its sum over all processes.

        All processes must call it in the same order. Raises RingBroken.
        """
        self._reduce(array, divisor=1)

    def average(self, array: np.ndarray) -> None:
        """The same with the mean. Each process divides the part whose sum it has formed."""
        self._reduce(array, divisor=self._count)

    def _reduce(self, array: np.ndarray, divisor: int) -> None:
        bounds = [len(array) * part // self._count for part in range(self._count + 1)]
        parts = [array[start:stop] for start, stop in zip(bounds, bounds[1:], strict=False)]
        received = self._room_for(max(len(part) for part in parts), array.dtype)
        for turn in range(self._count - 1):
            part = parts[(self._place - turn - 1) % self._count]
            into = received[: len(part)]
            self._exchange(parts[(self._place - turn) % self._count], into)
            part += into
        if divisor != 1:
            parts[(self._place + 1) % self._count] /= divisor
        for turn in range(self._count - 1):
            self._exchange(parts[(self._place - turn + 1) % self._count], parts[(self._place - turn) % self._count])

    def _room_for(self, count: int, dtype: np.dtype) -> np.ndarray:
        """Memory for what comes in, kept: to map it anew for each step of a training costs more than to fill it."""
        if self._received.dtype != dtype or len(self._received) < count:
            self._received = np.empty(count, dtype)
        return self._received

    def close(self) -> None:
        """Hang up."""
        self._next.close()
        self._previous.close()

    def _exchange(self, out: np.ndarray, into: np.ndarray) -> None:
        """Send one array on while another comes in. Both at once: two that only sent would wait for each other."""
        sending, receiving = out.data.cast("B"), into.data.cast("B")
        while sending or receiving:
            readable, writable, _ = select.select(
                [self._previous] if receiving else [], [self._next] if sending else [], [], TIMEOUT_S
            )
            if not readable and not writable:
                raise RingBroken(f"another worker did not answer for {TIMEOUT_S:g} s")
            try:
                if writable:
                    sending = sending[self._next.send(sending) :]
                if readable:
                    count = self._previous.recv_into(receiving)
                    if not count:
                        raise RingBroken("another worker has hung up")
                    receiving = receiving[count:]
            except OSError as error:
                raise RingBroken(f"the line to another worker is broken ({error})") from error


def _accept(listener: socket.socket, token: bytes) -> socket.socket:
    listener.settimeout(TIMEOUT_S)
    while True:
        try:
            line, _ = listener.accept()
        except TimeoutError as error:
            raise RingBroken(f"another worker did not come for {TIMEOUT_S:g} s") from error
        line.settimeout(_GREETING_TIMEOUT_S)
        # Whoever only tried whether the port can be reached has hung up, or says nothing.
        with suppress(OSError):
            if hmac.compare_digest(line.recv(_TOKEN_BYTES, socket.MSG_WAITALL), _greeting(token)):
                return line
        line.close()


def _greeting(token: bytes) -> bytes:
    return hmac.digest(token, b"sparkcnn ring", "sha256")
