"""A connection among the tasks of one training: tests the network before it starts, and tells all when one fails.

Spark itself notices a lost executor, but not a process that a task has started. So every task keeps a line to the
first one's; whoever's rank fails says so on it, and all stop.
"""

import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

CONNECT_SECONDS = 10.0
# Every other task connects once before a rank's own server listens there, and none of them is accepted until then.
BACKLOG = 4096
# A blocked port does not answer: they must not be waited for one after the other.
CONNECTIONS_AT_ONCE = 64


def listen(host: str, ports: range | None) -> socket.socket:
    """Open a socket on a free port of this host, out of `ports` where given. Raises OSError where none is free."""
    for port in ports or (0,):
        listener = socket.socket(_family(host), socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(BACKLOG)
            return listener
        except OSError:
            listener.close()
    raise OSError(f"none of the ports {ports.start}-{ports.stop - 1} is free" if ports else "no port is free")


def address_of(listener: socket.socket) -> str:
    """Where a socket listens, as "host:port"."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of an address.

    >>> host_and_port("worker-3:40000"), host_and_port("[::1]:40000")
    (('worker-3', 40000), ('::1', 40000))
    """
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


def unreachable(address: str) -> str:
    """Why an address "host:port" cannot be connected to, or "" if it can."""
    try:
        socket.create_connection(host_and_port(address), CONNECT_SECONDS).close()
    except OSError as error:
        return str(error) or type(error).__name__
    return ""


def unreachable_of(addresses: Sequence[str]) -> dict[str, str]:
    """Those of the addresses that cannot be connected to, each with why."""
    with ThreadPoolExecutor(min(CONNECTIONS_AT_ONCE, len(addresses)), "sparkcnn-connect") as threads:
        problems = threads.map(unreachable, addresses)
        return {address: problem for address, problem in zip(addresses, problems, strict=True) if problem}


class FailureSignal:
    """One task's end of the connection. `on_stop` is called once, in a thread, with the number of the first to fail.

    `listener` is the first task's own, open since before the addresses were exchanged; the others connect to it.
    `secret` is one that all tasks share: what comes from anyone else counts for nothing.
    """

    def __init__(
        self, rank: int, hub_address: str, secret: str, listener: socket.socket | None, on_stop: Callable[[int], None]
    ) -> None:
        self._on_stop = on_stop
        self._told = threading.Event()
        self._secret = secret.encode()
        self._hub = _Hub(listener, self._secret) if listener is not None else None
        self._line = socket.create_connection(host_and_port(hub_address), CONNECT_SECONDS)
        self._line.settimeout(None)
        self._rank = rank
        threading.Thread(target=self._hear, name="sparkcnn-failure-signal", daemon=True).start()

    def fail(self) -> None:
        """Tell all tasks that this one's rank has failed."""
        with suppress(OSError):  # the first task is gone, and with it the training
            self._line.sendall(self._secret + b" %d\n" % self._rank)

    def close(self) -> None:
        """Hang up. To be called when all tasks are done."""
        self._told.set()
        _hang_up(self._line)
        if self._hub is not None:
            self._hub.close()

    def _hear(self) -> None:
        with suppress(OSError):
            for line in self._line.makefile("rb"):
                if not self._told.is_set():
                    self._told.set()
                    self._on_stop(int(line.removeprefix(self._secret)))


class _Hub:
    """The first task's side: hands the first failure that it hears of to every line."""

    def __init__(self, listener: socket.socket, secret: bytes) -> None:
        self._listener = listener
        self._secret = secret
        self._lines: list[socket.socket] = []
        self._lock = threading.Lock()
        self._first: bytes | None = None
        threading.Thread(target=self._accept, name="sparkcnn-hub", daemon=True).start()

    def close(self) -> None:
        _hang_up(self._listener)
        with self._lock:
            for line in self._lines:
                _hang_up(line)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                line, _ = self._listener.accept()
                with self._lock:
                    self._lines.append(line)
                    if self._first is not None:
                        with suppress(OSError):
                            line.sendall(self._first)
                threading.Thread(target=self._hear, args=(line,), name="sparkcnn-hub-line", daemon=True).start()

    def _hear(self, line: socket.socket) -> None:
        with suppress(OSError):
            for message in line.makefile("rb"):
                if not message.startswith(self._secret + b" "):
                    return  # somebody who looks for open ports, say
                with self._lock:
                    if self._first is not None:
                        return
                    self._first = message
                    for other in self._lines:
                        with suppress(OSError):
                            other.sendall(message)


def _hang_up(opened: socket.socket) -> None:
    """Close a socket that a thread may wait at: `close` alone would leave it there, and the port taken."""
    with suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
    opened.close()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
