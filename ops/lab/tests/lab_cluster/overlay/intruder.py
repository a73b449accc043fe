"""Configures a WireGuard device with a foreign key to send to a node: `SOCKET PUBLIC_KEY ENDPOINT`.

SOCKET is the device's UAPI socket. The peer's allowed IPs are the whole mesh. Prints the bytes sent and received,
once some have been sent.
"""

import base64
import os
import socket
import sys
import time


def request(path, text):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.sendall(f"{text}\n".encode())
    # A response ends with an empty line; the connection may stay open.
    response = dict(line.rstrip().split("=") for line in iter(connection.makefile().readline, "\n"))
    assert response["errno"] == "0", response
    return response


def main(path, public_key, endpoint):
    peer = base64.b64decode(public_key).hex()
    lines = ["set=1", f"private_key={os.urandom(32).hex()}", f"public_key={peer}", f"endpoint={endpoint}"]
    request(path, "\n".join([*lines, "allowed_ip=10.42.0.0/16", "persistent_keepalive_interval=1", ""]))
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        device = request(path, "get=1\n")
        if int(device["tx_bytes"]):
            print(device["tx_bytes"], device["rx_bytes"])
            return
        time.sleep(0.02)
    sys.exit("the device sends nothing")


main(*sys.argv[1:])
