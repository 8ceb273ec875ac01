#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One DNS query, as a resolver library sends it. dns_client.py HOW SERVER NAME TYPE

HOW: udp (unconnected, as musl), connected (as glibc, Go, c-ares) or tcp. Prints one JSON object: the source of the answer, getpeername(),
and the answer in hex without its id, which is checked here.
"""
import json
import os
import socket
import struct
import sys

TYPES = {"A": 1, "TXT": 16, "AAAA": 28}


def query(name, kind):
    wire = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
    return os.urandom(2) + struct.pack(">5H", 0x0100, 1, 0, 0, 0) + wire + b"\0" + struct.pack(
        ">2H", TYPES[kind], 1)


def read_exactly(stream, count):
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def main():
    how, server, name, kind = sys.argv[1:]
    message = query(name, kind)
    stream = socket.socket(socket.AF_INET,
                           socket.SOCK_STREAM if how == "tcp" else socket.SOCK_DGRAM)
    stream.settimeout(8)
    peer = ""
    if how == "udp":
        stream.sendto(message, (server, 53))
    else:
        stream.connect((server, 53))
        peer = "%s:%d" % stream.getpeername()
        stream.sendall(message if how == "connected" else struct.pack(">H", len(message)) + message)
    if how == "tcp":
        reply = read_exactly(stream, struct.unpack(">H", read_exactly(stream, 2))[0])
        source = peer
    else:
        reply, sender = stream.recvfrom(65535)
        source = "%s:%d" % sender
    if reply[:2] != message[:2]:
        raise ValueError("the answer has another id")
    flags, _, answers = struct.unpack(">3H", reply[2:8])
    print(json.dumps({"source": source, "peer": peer, "rcode": flags & 15, "answers": answers,
                      "truncated": bool(flags & 0x0200), "bytes": reply[2:].hex(),
                      "text": reply[len(message):].decode("latin-1")}))


main()
