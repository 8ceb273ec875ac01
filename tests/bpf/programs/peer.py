# SPDX-License-Identifier: Apache-2.0
"""Python's side of tests/bpf/programs_test.cc (README.md has what each role does): client and server
with blocking sockets and threads, or with asyncio's streams."""
import asyncio
import hashlib
import re
import socket
import sys
import threading


def length_of(head):
    found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    return int(found[1]) if found else 0


def request_of(how, size, directory):
    if how == "get":
        return b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % size.encode()
    with open(f"{directory}/{size}", "rb") as file:
        payload = file.read()
    return b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (size.encode(), len(payload)) + payload


def reply_of(body):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def report(body):
    print(len(body), hashlib.sha256(body).hexdigest(), flush=True)


def receive(file):
    """The body of one message; None at the end of the connection."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = file.readline()
        if not line:
            return None
        head += line
    return file.read(length_of(head))


def blocking_client(host, port, how, directory):
    connection = file = None
    for line in sys.stdin:
        if line == "new\n":
            if connection:
                file.close()
                connection.close()
            connection = socket.create_connection((host, int(port)))
            file = connection.makefile("rb")
            print("new", flush=True)
        else:
            connection.sendall(request_of(how, line.split()[1], directory))
            report(receive(file))


def serve_blocking(connection):
    with connection, connection.makefile("rb") as file:
        while (body := receive(file)) is not None:
            connection.sendall(reply_of(body))


def blocking_server(port):
    listener = socket.create_server(("", int(port)))
    while True:
        threading.Thread(target=serve_blocking, args=(listener.accept()[0],)).start()


async def receive_async(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    return await reader.readexactly(length_of(head))


async def asyncio_client(host, port, how, directory):
    writer = None
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line == "new\n":
            if writer:
                writer.close()
                await writer.wait_closed()
            reader, writer = await asyncio.open_connection(host, int(port))
            print("new", flush=True)
        else:
            writer.write(request_of(how, line.split()[1], directory))
            await writer.drain()
            report(await receive_async(reader))


async def serve_async(reader, writer):
    try:
        while True:
            writer.write(reply_of(await receive_async(reader)))
            await writer.drain()
    except asyncio.IncompleteReadError:
        writer.close()


async def asyncio_server(port):
    server = await asyncio.start_server(serve_async, "", int(port))
    await server.serve_forever()


ROLES = {
    "client": blocking_client,
    "server": blocking_server,
    "asyncio-client": asyncio_client,
    "asyncio-server": asyncio_server,
}
done = ROLES[sys.argv[1]](*sys.argv[2:])
if done is not None:
    asyncio.run(done)
