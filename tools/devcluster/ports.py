"""Ports for servers that run beside each other."""

import socket


def free_ports(count: int) -> list[int]:
    """Different loopback ports that nobody listens on; all are held until the last one is found."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports
