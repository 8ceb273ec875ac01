# SPDX-License-Identifier: Apache-2.0
"""An HTTP/1.1 upstream that does what a test tells it. Each listens on a port of its own and records every request it got.

A behaviour is a function (request, number of this request since reset) -> action; the actions are the classes below.
"""
import socket
import threading


class Reply:
    def __init__(self, status=200, body=b"ok", headers=(), delay=0.0, chunked=False, cut_after=None):
        self.status, self.body, self.headers, self.delay = status, body, headers, delay
        self.chunked, self.cut_after = chunked, cut_after


class Close:
    """Ends the connection without an answer."""


class Reset:
    """Ends it with RST."""


class Hang:
    """Never answers; the connection stays until the other side ends it."""


class Request:
    def __init__(self, method, path, headers, body):
        self.method, self.path, self.headers, self.body = method, path, headers, body

    def get(self, name):
        return [value for key, value in self.headers if key == name.lower()]


class Upstream:
    def __init__(self, behaviour=None):
        self.behaviour = behaviour or (lambda request, number: Reply())
        self.lock = threading.Lock()
        self.requests = []
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self):
        with self.lock:
            self.requests = []
            self.connections = 0

    def seen(self):
        with self.lock:
            return list(self.requests)

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        stream = connection.makefile("rb")
        try:
            while True:
                request = read_request(stream)
                if request is None:
                    return
                with self.lock:
                    number = len(self.requests)
                    self.requests.append(request)
                if not self._act(connection, request, self.behaviour(request, number)):
                    return
        except (OSError, ValueError):
            return
        finally:
            stream.close()
            connection.close()

    @staticmethod
    def _act(connection, request, action):
        if isinstance(action, Reset):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            return False
        if isinstance(action, Close):
            return False
        if isinstance(action, Hang):
            connection.recv(1)
            return False
        if action.delay:
            threading.Event().wait(action.delay)
        head = f"HTTP/1.1 {action.status} X\r\n" + "".join(f"{k}: {v}\r\n" for k, v in action.headers)
        bodyless = request.method == "HEAD" or action.status in (204, 304)
        if action.chunked:
            payload = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (action.body[:3], action.body[3:]) if p) + b"0\r\n\r\n"
            head += "transfer-encoding: chunked\r\n\r\n"
        else:
            payload = action.body
            head += f"content-length: {len(action.body)}\r\n\r\n" if action.status != 204 else "\r\n"
        data = head.encode() + (b"" if bodyless else payload)
        if action.cut_after is not None:
            connection.sendall(head.encode() + payload[:action.cut_after])
            return False
        connection.sendall(data)
        return True


def read_head(stream):
    lines = []
    while True:
        line = stream.readline(65536)
        if not line:
            return None
        if line in (b"\r\n", b"\n"):
            if lines:
                return [text.decode("latin-1").rstrip("\r\n") for text in lines]
            continue
        lines.append(line)


def parse_headers(lines):
    return [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]


def read_chunked(stream):
    body = b""
    while True:
        size = int(stream.readline().split(b";")[0], 16)
        data = stream.read(size)
        stream.readline()
        if size == 0:
            return body
        body += data


def read_request(stream):
    lines = read_head(stream)
    if lines is None:
        return None
    method, path, _ = lines[0].split(" ", 2)
    headers = parse_headers(lines[1:])
    fields = dict(headers)
    if "chunked" in fields.get("transfer-encoding", ""):
        body = read_chunked(stream)
    else:
        body = stream.read(int(fields.get("content-length", "0")))
    return Request(method, path, headers, body)
