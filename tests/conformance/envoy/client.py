# SPDX-License-Identifier: Apache-2.0
"""A raw HTTP/1.1 client: sends exactly the bytes it is given and takes the answer apart."""
import socket

from upstream import parse_headers, read_chunked, read_head


class Response:
    def __init__(self, status, headers, body, complete, informational=()):
        self.status, self.headers, self.body = status, headers, body
        self.complete, self.informational = complete, list(informational)

    def get(self, name):
        return [value for key, value in self.headers if key == name.lower()]


class Connection:
    def __init__(self, port, timeout=10.0):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.stream = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def read(self, method="GET"):
        """The next response; None if the connection ended before one began."""
        informational = []
        while True:
            try:
                lines = read_head(self.stream)
            except ConnectionResetError:
                return None
            if lines is None:
                return None
            status = int(lines[0].split(" ")[1])
            if 100 <= status < 200 and status != 101:
                informational.append(status)
                continue
            headers = parse_headers(lines[1:])
            body, complete = self._body(method, status, dict(headers))
            return Response(status, headers, body, complete, informational)

    def _body(self, method, status, fields):
        if method == "HEAD" or status in (204, 304):
            return b"", True
        try:
            if "chunked" in fields.get("transfer-encoding", ""):
                return read_chunked(self.stream), True
            if "content-length" in fields:
                wanted = int(fields["content-length"])
                body = self.stream.read(wanted)
                return body, len(body) == wanted
            return self.stream.read(), True
        except (ValueError, ConnectionResetError):
            return b"", False

    def ended(self):
        """True if the other side closed: waits for FIN or RST."""
        try:
            return self.stream.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self):
        self.stream.close()
        self.socket.close()


def request_bytes(method="GET", path="/", host="h", headers=(), body=None):
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"] + [f"{k}: {v}" for k, v in headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + (body or b"")


def fetch(port, method="GET", path="/", host="h", headers=(), body=None):
    connection = Connection(port)
    try:
        connection.send(request_bytes(method, path, host, headers, body))
        return connection.read(method)
    finally:
        connection.close()
