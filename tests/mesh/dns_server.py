#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The resolver of the DNS mesh test: knows nothing of the mesh. dns_server.py ADDRESS LOG

outside.example A    192.0.2.53, TTL 77, with an unusual TXT record behind it
who.example     TXT  the address that the query came from
big.example     TXT  too large for a datagram: TC over UDP, whole over TCP
silent.example       never answered
anything else        NXDOMAIN
Each query is a line in LOG: transport, source address, name.
"""
import socket
import struct
import sys
import threading


def read_name(message, at):
    labels = []
    while message[at]:
        labels.append(message[at + 1:at + 1 + message[at]].decode("latin-1"))
        at += message[at] + 1
    return ".".join(labels), at + 1


def record(kind, ttl, data):
    return b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data


def text(value):
    pieces = [value[i:i + 255] for i in range(0, len(value), 255)]
    return record(16, 5, b"".join(bytes([len(p)]) + p for p in pieces))


def answer(message, source, tcp):
    """The answer, or None; and the name that was asked for."""
    name, end = read_name(message, 12)
    known = name.lower()
    kind = struct.unpack(">H", message[end:end + 2])[0]
    question = message[12:end + 4]
    flags, records = 0x8180, []
    if known == "silent.example":
        return None, name
    if known == "outside.example" and kind == 1:
        records = [record(1, 77, bytes([192, 0, 2, 53])), text(b"left as it is")]
    elif known == "outside.example":
        records = []
    elif known == "who.example":
        records = [text(source.encode())]
    elif known == "big.example":
        records = [text(b"x" * 3000)] if tcp else []
        flags |= 0 if tcp else 0x0200
    else:
        flags |= 3
    header = message[:2] + struct.pack(">5H", flags, 1, len(records), 0, 0)
    return header + question + b"".join(records), name


class Log:
    def __init__(self, path):
        self.file = open(path, "a", buffering=1)

    def add(self, transport, source, name):
        self.file.write(f"{transport} {source} {name}\n")


def serve_udp(server, log):
    while True:
        message, source = server.recvfrom(4096)
        reply, name = answer(message, source[0], False)
        log.add("udp", source[0], name)
        if reply:
            server.sendto(reply, source)


def serve_connection(connection, source, log):
    with connection, connection.makefile("rb") as stream:
        while True:
            length = stream.read(2)
            if len(length) < 2:
                return
            message = stream.read(struct.unpack(">H", length)[0])
            reply, name = answer(message, source, True)
            log.add("tcp", source, name)
            if reply:
                connection.sendall(struct.pack(">H", len(reply)) + reply)


def main():
    address, log = sys.argv[1], Log(sys.argv[2])
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, 53))
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp.bind((address, 53))
    tcp.listen(16)
    threading.Thread(target=serve_udp, args=(udp, log), daemon=True).start()
    while True:
        connection, source = tcp.accept()
        threading.Thread(target=serve_connection, args=(connection, source[0], log),
                         daemon=True).start()


main()
