"""A signal between the tasks of one training: when one rank fails, all tasks learn it and stop their ranks.

Spark notices a lost executor, but not a failed process that a task has started. So every task keeps a connection to the
first task. A task whose rank fails reports it there, and the first task passes the first report on to all.
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from pipelines.train.workers.connections import CONNECT_SECONDS, host_and_port, shut_down


class FailureSignal:
    """The signal in one task. `on_failure` is called once, in a thread, with the rank that failed first.

    The tasks connect to `address`. `listener` is the socket that listens there in the first task, and None in the other
    tasks. `secret` is common to all tasks; messages without it are ignored.
    """

    def __init__(
        self, rank: int, address: str, secret: str, listener: socket.socket | None, on_failure: Callable[[int], None]
    ) -> None:
        self._rank = rank
        self._secret = secret.encode()
        self._on_failure = on_failure
        self._over = threading.Event()
        self._relay = _Relay(listener, self._secret) if listener is not None else None
        self._connection = socket.create_connection(host_and_port(address), CONNECT_SECONDS)
        self._connection.settimeout(None)
        threading.Thread(target=self._receive, name="sparkcnn-failure-signal", daemon=True).start()

    def fail(self) -> None:
        """Report to all tasks that this task's rank has failed."""
        with suppress(OSError):  # the first task is gone, so the training is over anyway
            self._connection.sendall(self._secret + b" %d\n" % self._rank)

    def close(self) -> None:
        """Close the connection. Call this when all tasks are done."""
        self._over.set()
        shut_down(self._connection)
        if self._relay is not None:
            self._relay.close()

    def _receive(self) -> None:
        with suppress(OSError):
            for message in self._connection.makefile("rb"):
                if not self._over.is_set():
                    self._over.set()
                    self._on_failure(int(message.removeprefix(self._secret)))


class _Relay:
    """The server in the first task. It sends the first failure that it receives to every connection."""

    def __init__(self, listener: socket.socket, secret: bytes) -> None:
        self._listener = listener
        self._secret = secret
        self._connections: list[socket.socket] = []
        self._lock = threading.Lock()
        self._first: bytes | None = None
        threading.Thread(target=self._accept, name="sparkcnn-relay", daemon=True).start()

    def close(self) -> None:
        shut_down(self._listener)
        with self._lock:
            for connection in self._connections:
                shut_down(connection)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with self._lock:
                    self._connections.append(connection)
                    if self._first is not None:
                        with suppress(OSError):
                            connection.sendall(self._first)
                threading.Thread(
                    target=self._receive, args=(connection,), name="sparkcnn-relay-connection", daemon=True
                ).start()

    def _receive(self, connection: socket.socket) -> None:
        with suppress(OSError):
            for message in connection.makefile("rb"):
                if not message.startswith(self._secret + b" "):
                    return  # from a stranger, for example a port scanner
                with self._lock:
                    if self._first is not None:
                        return
                    self._first = message
                    for other in self._connections:
                        with suppress(OSError):
                            other.sendall(message)
