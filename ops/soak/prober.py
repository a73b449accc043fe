#!/usr/bin/env python3
"""Runs in the network namespace of a guest: echoes TCP and UDP, and probes other hosts without a pause.

The argument is a JSON object: `address`, its own; `targets`, addresses by name; `outside`, the names to which NAT
leads, where a full-size packet need not pass; `mtu`. Each result is a line of JSON: time of sending, time of the result
(monotonic, in seconds), target, kind, whether it passed."""
import asyncio
import json
import os
import socket
import struct
import sys
import time

PERIOD_S = 0.25  # between two probes of one kind to one target
WITHIN_S = 0.4  # a probe that is answered later did not pass
TCP_PORT, UDP_PORT = 7001, 7002
TCP_BYTES = 8000  # several full segments each way
ICMP_OVERHEAD = 28  # IPv4 and ICMP headers
IP_MTU_DISCOVER, IP_PMTUDISC_PROBE = 10, 3  # always DF, whatever path MTU is known (linux/in.h)


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(data, address)


class Flow(asyncio.DatagramProtocol):
    """One UDP flow that lasts as long as this process: its ports never change."""

    def __init__(self):
        self.waiting = {}

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, _address):
        waiting = self.waiting.pop(data, None)
        if waiting and not waiting.done():
            waiting.set_result(None)

    def error_received(self, _error):
        pass  # the probe times out


class Pinger:
    """Echo requests of any size, with the DF flag."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        self.id, self.sequence, self.waiting = os.getpid() & 0xffff, 0, {}
        asyncio.get_running_loop().add_reader(self.socket, self.receive)

    def receive(self):
        try:
            packet = self.socket.recv(65536)
        except OSError:
            return  # an ICMP error that belongs to no probe
        kind, _, _, identifier, sequence = struct.unpack_from("!BBHHH", packet, (packet[0] & 15) * 4)
        waiting = self.waiting.pop(sequence, None) if (kind, identifier) == (0, self.id) else None
        if waiting and not waiting.done():
            waiting.set_result(None)

    async def ping(self, address, size):
        self.sequence = sequence = self.sequence % 0xffff + 1
        self.waiting[sequence] = asyncio.get_running_loop().create_future()
        packet = struct.pack("!BBHHH", 8, 0, 0, self.id, sequence) + bytes(size)
        packet = packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]
        try:
            self.socket.sendto(packet, (address, 0))
            await self.waiting[sequence]
        finally:
            self.waiting.pop(sequence, None)


def checksum(packet):
    packet += bytes(len(packet) % 2)
    total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff


async def echo(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def connect(address):
    """A new connection, on which data passes both ways."""
    reader, writer = await asyncio.open_connection(address, TCP_PORT)
    try:
        writer.write(bytes(TCP_BYTES))
        await reader.readexactly(TCP_BYTES)
    finally:
        writer.transport.abort()


async def datagram(flow, number):
    data = struct.pack("!Q", number)
    flow.waiting[data] = asyncio.get_running_loop().create_future()
    try:
        flow.transport.sendto(data)
        await flow.waiting[data]
    finally:
        flow.waiting.pop(data, None)


async def probe(target, kind, attempt):
    sent = time.monotonic()
    try:
        await asyncio.wait_for(attempt, WITHIN_S)
        passed = True
    except (OSError, EOFError, asyncio.TimeoutError):
        passed = False
    print(json.dumps([sent, time.monotonic(), target, kind, passed]), flush=True)


async def watch(target, address, size, pinger):
    """Probes one target, each kind in its turn."""
    loop, number, running = asyncio.get_running_loop(), 0, set()
    _, flow = await loop.create_datagram_endpoint(Flow, remote_addr=(address, UDP_PORT))
    while True:
        number += 1
        attempts = {"ping": pinger.ping(address, 8), "tcp": connect(address), "udp": datagram(flow, number)}
        if size:
            attempts["full"] = pinger.ping(address, size)
        for kind, attempt in attempts.items():
            task = asyncio.create_task(probe(target, kind, attempt))
            running.add(task)
            task.add_done_callback(running.discard)
            await asyncio.sleep(PERIOD_S / len(attempts))


async def main():
    options = json.loads(sys.argv[1])
    loop = asyncio.get_running_loop()
    await asyncio.start_server(echo, options["address"], TCP_PORT)
    await loop.create_datagram_endpoint(Echo, local_addr=(options["address"], UDP_PORT))
    pinger = Pinger()
    full = options["mtu"] - ICMP_OVERHEAD
    watches = [watch(target, address, 0 if target in options["outside"] else full, pinger)
               for target, address in options["targets"].items()]
    await asyncio.gather(asyncio.Event().wait(), *watches)


if __name__ == "__main__":
    asyncio.run(main())
