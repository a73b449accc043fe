"""Configures a WireGuard device with a foreign key to send to a node: `SOCKET PUBLIC_KEY ENDPOINT`.

SOCKET is the device's. The peer's allowed IPs are the whole mesh. Prints the bytes sent and received, once some have
been sent.
"""

import base64
import os
import socket
import sys
import time


def ask(path, request):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.sendall(f"{request}\n".encode())
    # An answer ends with an empty line; the connection may go on.
    answer = dict(line.rstrip().split("=") for line in iter(connection.makefile().readline, "\n"))
    assert answer["errno"] == "0", answer
    return answer


def main(path, public_key, endpoint):
    peer = base64.b64decode(public_key).hex()
    lines = ["set=1", f"private_key={os.urandom(32).hex()}", f"public_key={peer}", f"endpoint={endpoint}"]
    ask(path, "\n".join([*lines, "allowed_ip=10.42.0.0/16", "persistent_keepalive_interval=1", ""]))
    until = time.monotonic() + 10
    while time.monotonic() < until:
        said = ask(path, "get=1\n")
        if int(said["tx_bytes"]):
            print(said["tx_bytes"], said["rx_bytes"])
            return
        time.sleep(0.02)
    sys.exit("the device sends nothing")


main(*sys.argv[1:])
