"""A server that does nothing: it receives a request and sends back an answer that it was given.

What a request costs here is what Python, trio, the kernel and the client cost, without kpcache. The answer
is read from stdin, so that a private key is in no file and no argument. Of a request it reads the msgid
alone, which it puts into the answer: the client that times it is kpcache's own and insists on that.

    python -m bench.echo SOCKET < ANSWER
"""

import sys

import trio

_MSGID_AT = 2  # both messages are arrays of four items that begin with their type and the msgid
_MSGID_BYTES = {0xCC: 2, 0xCD: 3, 0xCE: 5}  # msgpack's unsigned integers; below 0x80 it is one byte


def _msgid_end(message: bytes | bytearray) -> int:
    return _MSGID_AT + _MSGID_BYTES.get(message[_MSGID_AT], 1)


async def _serve(path: str, answer: bytes) -> None:
    head, tail = answer[:_MSGID_AT], answer[_msgid_end(answer) :]

    async def handle(stream: trio.SocketStream) -> None:
        while request := await stream.receive_some(65536):
            await stream.send_all(head + request[_MSGID_AT : _msgid_end(request)] + tail)

    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as sock:
        await sock.bind(path)
        sock.listen()
        print("ready", flush=True)
        await trio.serve_listeners(handle, [trio.SocketListener(sock)])


if __name__ == "__main__":
    trio.run(_serve, sys.argv[1], sys.stdin.buffer.read())
