"""What a guest tries. Prints `reached` or `not reached`."""
import socket
import struct
import sys
import time

DEADLINE = 0.4


def packets(device, protocol):
    receiver = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
    receiver.bind((device, protocol))
    return receiver


def arp(device, sender, target):
    """Asks for an address, with any sender."""
    with packets(device, 0x0806) as sock:
        mac = sock.getsockname()[4]
        request = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + socket.inet_aton(sender)
        frame = b"\xff" * 6 + mac + b"\x08\x06" + request + bytes(6) + socket.inet_aton(target)
        for _ in range(3):
            sock.send(frame)
        end = time.monotonic() + DEADLINE
        while (left := end - time.monotonic()) > 0:
            sock.settimeout(left)
            try:
                answer = sock.recv(2048)
            except TimeoutError:
                break
            if answer[20:22] == b"\0\2" and answer[28:32] == socket.inet_aton(target):
                return True
    return False


def tcp(address, port):
    """Connects, with IPv6 to ADDRESS%DEVICE."""
    info = socket.getaddrinfo(address, int(port), type=socket.SOCK_STREAM)[0]
    with socket.socket(info[0], info[1]) as sock:
        sock.settimeout(DEADLINE)
        try:
            sock.connect(info[4])
        except OSError:
            return False
    return True


def port(address, port, source):
    """Connects from a source port, and says whether the server sees a port below 1024."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("", int(source)))
        sock.settimeout(DEADLINE)
        sock.connect((address, int(port)))
        return int(sock.recv(10)) < 1024


def ports(port):
    """Tells each TCP client its port."""
    server = socket.create_server(("", int(port)))
    print("serving", flush=True)
    while True:
        peer, address = server.accept()
        peer.sendall(str(address[1]).encode())
        peer.close()


def udp(address, port, source):
    """Sends a datagram from this source, and waits for a reply."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.bind((source, 0))
        sock.settimeout(DEADLINE)
        try:
            sock.sendto(b"hello", (address, int(port)))
            return sock.recv(100) == b"hello"
        except OSError:
            return False


def hold(address, port):
    """Connects, and after a line of input says whether the connection still works."""
    with socket.create_connection((address, int(port)), 5) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        print("connected", flush=True)
        input()
        sock.settimeout(DEADLINE)
        try:
            sock.sendall(b"y")
            return sock.recv(1) == b"y"
        except OSError:
            return False


def echo(port):
    """Echoes bytes of TCP connections."""
    import threading

    def answer(peer):
        while data := peer.recv(100):
            peer.sendall(data)

    server = socket.create_server(("", int(port)))
    print("serving", flush=True)
    while True:
        threading.Thread(target=answer, args=server.accept()[:1], daemon=True).start()


def serve(*ports):
    """Accepts TCP over IPv4 and IPv6, and answers UDP, on these ports."""
    import select

    servers, answering = [], []
    for port in map(int, ports):
        server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
        datagrams.bind(("", port))
        servers.append(server)
        answering.append(datagrams)
    print("serving", flush=True)
    while True:
        for ready in select.select(servers + answering, [], [])[0]:
            if ready in servers:
                ready.accept()[0].close()
            else:
                data, ancillary, _, peer = ready.recvmsg(100, 100)
                # Answers from the address that was asked.
                info = bytes(4) + ancillary[0][2][8:12] + bytes(4)
                try:
                    ready.sendmsg([data], [(socket.IPPROTO_IP, 8, info)], 0, peer)
                except OSError:  # a group was asked, or there is no route
                    pass


names = {"arp": arp, "tcp": tcp, "udp": udp, "port": port, "ports": ports, "hold": hold, "echo": echo, "serve": serve}
print("reached" if names[sys.argv[1]](*sys.argv[2:]) else "not reached")
