"""A guest's program.

`serve NAME`: receives bytes on each connection, and replies with its name, their SHA-256 and other bytes.
`call ADDRESS BYTES`: connects, verifies both directions by their SHA-256, and prints the server's name.
`send ADDRESS TEXT`: sends the text in a datagram.
"""

import hashlib
import os
import socket
import sys

PORT = 7000


def read(stream, count):
    data = stream.read(count)
    assert len(data) == count, f"{len(data)} of {count} bytes"
    return data


def serve(name):
    listener = socket.create_server(("", PORT))
    print("listening", flush=True)
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb") as stream:
            count = int(stream.readline())
            received = hashlib.sha256(read(stream, count)).hexdigest()
            reply = os.urandom(count)
            stream.write(f"{name} {received} {hashlib.sha256(reply).hexdigest()}\n".encode() + reply)


def call(address, count):
    with socket.create_connection((address, PORT), timeout=20) as connection, connection.makefile("rwb") as stream:
        data = os.urandom(count)
        stream.write(f"{count}\n".encode() + data)
        stream.flush()
        name, their_sha, sha = stream.readline().decode().split()
        assert their_sha == hashlib.sha256(data).hexdigest(), "the data sent was altered"
        assert sha == hashlib.sha256(read(stream, count)).hexdigest(), "the data received was altered"
        print(name)


def send(address, text):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(text.encode(), (address, 9))


command, *arguments = sys.argv[1:]
match command:
    case "serve":
        serve(arguments[0])
    case "call":
        call(arguments[0], int(arguments[1]))
    case "send":
        send(*arguments)
