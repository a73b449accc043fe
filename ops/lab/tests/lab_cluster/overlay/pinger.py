"""Pings an address every 5 ms, and replies to each line on standard input with the results since the previous line.

The reply is an object: `sent`, `lost` (sent before the line and not answered within 2 s after it), `gap_ms` (the
longest time between replies). Deliberately simple: one echo request (RFC 792) per sequence number, one thread.
"""

import json
import select
import socket
import struct
import sys
import time

INTERVAL = 0.005
REPLY_TIMEOUT = 2.0


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def request(identifier, number):
    body = struct.pack("!HHI", identifier, number & 0xFFFF, number) + b"otherix!" * 6
    return struct.pack("!BBH", 8, 0, checksum(b"\x08\0" + b"\0\0" + body)) + body


def main(address):
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    raw.setblocking(False)
    raw.connect((address, 0))
    identifier = int(time.monotonic_ns() // 1000) & 0xFFFF
    number, unanswered, pending = 0, set(), None
    window = {"sent": 0, "gap": 0.0}
    last = due = time.monotonic()
    while True:
        readable, _, _ = select.select([raw, sys.stdin], [], [], max(0.0, due - time.monotonic()))
        now = time.monotonic()
        if sys.stdin in readable:
            if not sys.stdin.readline():
                return
            pending = (now + REPLY_TIMEOUT, number, window)
            window = {"sent": 0, "gap": 0.0}
        while raw in readable:
            try:
                packet = raw.recv(2048)
            except BlockingIOError:
                break
            kind, _, _, reply_identifier, _, answered = struct.unpack_from("!BBHHHI", packet, 4 * (packet[0] & 15))
            if kind == 0 and reply_identifier == identifier and answered in unanswered:
                unanswered.discard(answered)
                for counts in (window, pending[2]) if pending else (window,):
                    counts["gap"] = max(counts["gap"], now - last)
                last = now
        if now >= due:
            due = max(due + INTERVAL, now)
            number += 1
            unanswered.add(number)
            window["sent"] += 1
            try:
                raw.send(request(identifier, number))
            except OSError:
                pass  # counts as lost
        if pending:
            deadline, last_number, results = pending
            missing = {one for one in unanswered if one <= last_number}
            if not missing or now >= deadline:
                unanswered -= missing
                gap = max(results["gap"], now - last if missing else 0.0)
                lost, gap_ms = len(missing), int(gap * 1000)
                print(json.dumps({"sent": results["sent"], "lost": lost, "gap_ms": gap_ms}), flush=True)
                pending = None


main(sys.argv[1])
