"""Sockets between the tasks of one training: listening, addresses, and whether an address can be reached."""

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

CONNECT_SECONDS = 10.0
# Every other task connects once to check the port, before this rank's own server accepts anybody.
BACKLOG = 4096
# A blocked port does not answer. Checking one after the other would add up the timeouts.
CONNECTIONS_AT_ONCE = 64


def listen(host: str, ports: range | None) -> socket.socket:
    """Open a socket on a free port of this host, from `ports` if given. Raises OSError if none is free."""
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
    """Return the address of a listening socket as "host:port"."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_and_port(address: str) -> tuple[str, int]:
    """Split an address into host and port.

    >>> host_and_port("worker-3:40000"), host_and_port("[::1]:40000")
    (('worker-3', 40000), ('::1', 40000))
    """
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


def connection_problem(address: str) -> str:
    """Return why no connection to "host:port" is possible, or "" if one is."""
    try:
        socket.create_connection(host_and_port(address), CONNECT_SECONDS).close()
    except OSError as error:
        return str(error) or type(error).__name__
    return ""


def connection_problems(addresses: Sequence[str]) -> dict[str, str]:
    """Return the problem of each address that cannot be reached."""
    with ThreadPoolExecutor(min(CONNECTIONS_AT_ONCE, len(addresses)), "sparkcnn-connect") as threads:
        problems = threads.map(connection_problem, addresses)
        return {address: problem for address, problem in zip(addresses, problems, strict=True) if problem}


def close_all(*opened: socket.socket | None) -> None:
    """Close the sockets that are not None."""
    for one in opened:
        if one is not None:
            one.close()


def shut_down(opened: socket.socket) -> None:
    """Close a socket that another thread waits on. `close` alone would leave that thread waiting and the port taken."""
    with suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
    opened.close()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
