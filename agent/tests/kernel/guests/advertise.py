"""Sends router advertisements through a device."""
import socket
import sys
import time

sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
index = socket.if_nametoindex(sys.argv[1])
sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
advertisement = bytes([134, 0, 0, 0, 64, 0, 7, 8]) + bytes(8)
for attempt in range(50):
    try:
        sock.sendto(advertisement, ("ff02::1", 0, 0, index))
        break
    except OSError:  # no address yet
        time.sleep(0.02)
