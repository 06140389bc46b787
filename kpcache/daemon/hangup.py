"""Whether a client that sends no more has only half-closed its connection, or is gone.

The end of the stream looks the same in both cases, and the socket stays readable from then on. The kernel
tells them apart by POLLHUP, which stands for both directions and is reported unasked (poll(2), unix(7)).
"""

import select
import socket

import trio


def is_gone(sock: socket.socket) -> bool:
    """Whether the peer has closed its end, so that nobody can read what is sent."""
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(0))


async def wait_gone(sock: socket.socket) -> None:
    """Wait until ``is_gone``. Costs a file descriptor for so long; raises ``OSError`` if there is none.

    trio can wait for a socket to be readable, which this one always is. An epoll that watches it for
    nothing but what is reported unasked becomes readable at the hang-up only.
    """
    with select.epoll(1) as hangup:
        hangup.register(sock, 0)
        await trio.lowlevel.wait_readable(hangup.fileno())
