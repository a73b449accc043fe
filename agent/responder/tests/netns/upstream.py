"""A resolver: upstream.py ADDRESS MODE. Prints a line for each question over UDP: its source port, its id and its name.

Answers with 192.0.2.77, and `big.` names with more than a datagram holds: truncated over UDP, in full over TCP. Modes:
`answer`, `silent`, `servfail`, and `spoofed`: answers with another id, another question and from another port come
before the right one."""
import socket
import struct
import sys
import threading

address, mode = sys.argv[1], sys.argv[2]


def name(message):
    labels, at = [], 12
    while length := message[at]:
        labels.append(message[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels), at + 5


def answer(message, over_tcp, data=b"\xc0\x00\x02\x4d"):
    asked, end = name(message)
    question = message[12:end]
    rest = message[end:]
    if mode == "servfail":
        return message[:2] + b"\x81\x82" + struct.pack("!HHHH", 1, 0, 0, 0) + question
    records = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + data
    count, flags = 1, 0x8180
    if asked.startswith("big."):
        text = b"\xc0\x0c" + struct.pack("!HHIH", 16, 1, 60, 201) + b"\xc8" + b"x" * 200
        # Over UDP too much for some links, but not for the client that asks for it.
        count = 40 if over_tcp else 8
        records = text * count
        size = struct.unpack("!H", rest[3:5])[0] if rest[:3] == b"\0\0\x29" else 512
        if not over_tcp and 12 + len(question) + len(records) > size:
            count, records, flags = 0, b"", 0x8380
    return message[:2] + struct.pack("!HHHHH", flags, 1, count, 0, 0) + question + records


def serve_tcp():
    server = socket.create_server((address, 53))
    while True:
        peer, _ = server.accept()
        message = b""
        while len(message) < 2 or len(message) < 2 + struct.unpack("!H", message[:2])[0]:
            chunk = peer.recv(70000)
            if not chunk:
                break
            message += chunk
        else:
            if mode != "silent":
                reply = answer(message[2:], True)
                peer.sendall(struct.pack("!H", len(reply)) + reply)
        peer.close()


sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((address, 53))
threading.Thread(target=serve_tcp, daemon=True).start()
other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
other.bind((address, 0))
print("serving", flush=True)
while True:
    message, peer = sock.recvfrom(4096)
    print(peer[1], message[:2].hex(), name(message)[0], flush=True)
    if mode == "silent":
        continue
    if mode == "spoofed":
        wrong = b"\x06\x06\x06\x06"
        sock.sendto(bytes([message[0] ^ 1]) + answer(message, False, wrong)[1:], peer)
        sock.sendto(answer(message[:12] + b"\x05other" + message[12:], False, wrong), peer)
        sock.sendto(message, peer)
        other.sendto(answer(message, False, wrong), peer)
    sock.sendto(answer(message, False), peer)
