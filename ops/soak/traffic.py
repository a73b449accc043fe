#!/usr/bin/env python3
"""Breaks and repairs the networks of nodes at random while guests send traffic, and compares it with what is reported.

No network may be `ready` for more than 2 s while its traffic does not pass, or anything else for more than 2 s while it
does. `make traffic` builds and runs it."""
import argparse
import asyncio
import collections
import contextlib
import dataclasses
import json
import random
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True  # no files in the source folder

import breaks
import clocks
from cluster import Cluster, run_until_signal
from judge import Judge

PROBER = Path(__file__).with_name("prober.py")
QUERY_PERIOD_S = 0.1
CALM_TIMEOUT_S = 60  # after a repair
CLOSE_TIMEOUT_S = 5  # of the connection to NATS, at the end
IMAGE = "https://images.example/none.qcow2"
NETWORKS = {
    "nat": ["--bridge-name", "br-nat", "--managed", "--egress", "nat", "--subnet", breaks.NAT_SUBNET],
    "span": ["--type", "overlay", "--subnet", "10.30.0.0/24"],
    "plain": ["--bridge-name", "br-plain", "--managed"],
}
# Guests by network: node and address. Those of a bridge reach each other on one node, those of an overlay everywhere.
GUESTS = {
    "nat": [("node-1", "10.20.0.11"), ("node-1", "10.20.0.12"), ("node-2", "10.20.0.21")],
    "span": [("node-1", "10.30.0.11"), ("node-2", "10.30.0.21"), ("node-3", "10.30.0.31")],
    "plain": [("node-1", "10.40.0.11"), ("node-1", "10.40.0.12")],
}


@dataclasses.dataclass
class Guest:
    name: str
    network: str
    node: str
    address: str
    tap: str = ""

    def reaches(self, other):
        return self is not other and self.network == other.network and (
            self.network == "span" or self.node == other.node)


@dataclasses.dataclass
class Node:
    """What breaks need to know of a node."""
    name: str
    bridges: dict
    guests: list
    vtep: str
    peer_endpoint: str
    peer_mesh_address: str

    def bridge(self, network):
        return self.bridges[network]

    @property
    def taps(self):
        return [guest.tap for guest in self.guests]

    def taps_on(self, bridge):
        return self.taps[0] in [guest.tap for guest in self.guests if self.bridges[guest.network] == bridge]


class Traffic:
    """The lab with its guests, their probes and the queries of statuses."""

    def __init__(self, cluster, judge):
        self.cluster, self.judge = cluster, judge
        self.guests = [Guest(f"{network}-{number}", network, node, address) for network, guests in GUESTS.items()
                       for number, (node, address) in enumerate(guests, 1)]
        self.mtu, self.ids, self.bridges = {}, {}, {}
        # Cancelling is not enough: before Python 3.12, `asyncio.wait_for` loses a cancellation that arrives with the
        # reply, and the queries would go on for ever.
        self.is_ended = False

    async def otherix(self, *arguments):
        state = self.cluster.folder / "otherixd"
        return (await self.cluster.run("otherix", "--server", self.cluster.url,
                                       "--credentials", str(state / "credentials/admin.creds"),
                                       "--ca", str(state / "identity/tls/ca.pem"), *arguments))[0]

    async def create(self):
        for name, arguments in NETWORKS.items():
            await self.otherix("network", "create", name, *arguments, "--wait")
            view = json.loads(await self.otherix("network", "get", name, "-o", "json"))
            self.mtu[name], self.ids[name], self.bridges[name] = view["mtu"], view["id"], view["bridge_name"]
        for guest in self.guests:
            await self.otherix("vm", "create", guest.name, "--network", guest.network, "--node", guest.node,
                               "--image-url", IMAGE, "--arch", "amd64", "--tap-only", "--wait")
            guest.tap = json.loads(await self.otherix("vm", "get", guest.name, "-o", "json"))["nic"]["tap"]
            await self.cluster.lab("guest", guest.name, "--ip", f"{guest.address}/24")

    async def nodes(self):
        """The nodes, as the breaks address their devices."""
        found = []
        for name in self.cluster.node_names():
            guests = [guest for guest in self.guests if guest.node == name]
            links = await self.cluster.links(name)
            vteps = [link["ifname"] for link in links if link.get("linkinfo", {}).get("info_kind") == "vxlan"]
            peer = next(other for other in self.cluster.node_names() if other != name)
            endpoint, mesh = [await self.address(peer, device) for device in ["eth0", "otwg0"]]
            found.append(Node(name, self.bridges, guests, vteps[0], endpoint, mesh))
        return found

    async def address(self, node, device):
        text, _ = await self.cluster.lab("exec", node, "--", "ip", "-4", "-j", "address", "show", "dev", device)
        return json.loads(text)[0]["addr_info"][0]["local"]

    async def shell(self, node, commands):
        await self.cluster.lab("exec", node, "--", "sh", "-c", commands)

    async def probe(self, place, address, mtu, targets):
        """Runs a prober until cancelled."""
        options = {"address": address, "mtu": mtu, "targets": targets, "outside": ["outside"]}
        process = await asyncio.create_subprocess_exec(
            "otherix-lab", "--lab", self.cluster.name, "exec", place, "--", sys.executable, str(PROBER),
            json.dumps(options), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            start_new_session=True)
        source = place.removeprefix("vm:")
        try:
            async for line in process.stdout:
                self.judge.record_traffic(source, *json.loads(line))
            raise RuntimeError(f"the prober of {place} ended")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def start(self, tasks):
        """Starts the probes of every pair, and the queries. Returns their tasks."""
        started = [tasks.create_task(self.probe("outside", breaks.OUTSIDE, 1500, {}))]
        for guest in self.guests:
            targets = {other.name: other.address for other in self.guests if guest.reaches(other)}
            for other in self.guests:
                if other.name in targets:
                    for kind in ["ping", "tcp", "udp", "full"]:
                        self.judge.add_pair(guest.name, other.name, kind, self.concerns(guest, other))
            if guest.network == "nat":
                targets["outside"] = breaks.OUTSIDE
                for kind in ["ping", "tcp", "udp"]:
                    self.judge.add_pair(guest.name, "outside", kind, self.concerns(guest))
            probe = self.probe(f"vm:{guest.name}", guest.address, self.mtu[guest.network], targets)
            started.append(tasks.create_task(probe))
        return started + [tasks.create_task(self.query())]

    @staticmethod
    def concerns(*guests):
        """The statuses of these guests, each with its node."""
        of_networks = {f"{guest.network} on {guest.node}": guest.node for guest in guests}
        return of_networks | {f"vm {guest.name}": guest.node for guest in guests}

    async def query(self):
        client = await self.cluster.connect()

        async def ask(name, body):
            subject = f"otherix.req.v1.{self.cluster.user}.{name}"
            return json.loads((await client.request(subject, json.dumps(body).encode(), timeout=5)).data)["data"]

        try:
            while not self.is_ended:
                for network, network_id in self.ids.items():
                    status = (await ask("network.get", {"id": network_id}))["status"]
                    now = time.monotonic()
                    for node in status["nodes"]:
                        is_ready = node["status"] == "ready" and node["reachable"]
                        name = f"{network} on {node['node_name']}"
                        warnings = [text for text in status["warnings"] if node["node_name"] in text]
                        self.judge.record_status(name, now, is_ready, node["error"] or "unreachable", warnings)
                for vm in await ask("vm.list", {"limit": 100}):
                    is_ready = vm["status"] == "ready" and vm["node_reachable"]
                    self.judge.record_status(
                        f"vm {vm['name']}", time.monotonic(), is_ready, vm["error"] or "unreachable", vm["warnings"])
                self.judge.look(time.monotonic())
                await asyncio.sleep(QUERY_PERIOD_S)
        finally:
            # Closing waits for ever if the cancellation interrupted a request.
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(client.close(), CLOSE_TIMEOUT_S)


async def calm(judge, timeout_s):
    """Waits until everything is ready and passes. Returns what is not, at the time-out."""
    end = time.monotonic() + timeout_s
    while not judge.is_calm() and time.monotonic() < end:
        await asyncio.sleep(QUERY_PERIOD_S)
    return [] if judge.is_calm() else judge.unrest()


async def episode(traffic, chosen, hold_s):
    """Breaks, holds, repairs; returns the violations."""
    judge = traffic.judge
    judge.begin_episode(chosen.node if chosen.is_cut_off else None)
    hold_s = judge.unreachable_after_s if chosen.is_cut_off else hold_s
    await traffic.shell(chosen.node, chosen.apply)
    await asyncio.sleep(hold_s)
    judge.end_of_break(hold_s)
    if chosen.repair:
        await traffic.shell(chosen.node, chosen.repair)
    lasting = await calm(judge, CALM_TIMEOUT_S)
    found = judge.violations(chosen.is_partial) + [f"{CALM_TIMEOUT_S} s after the repair: {text}" for text in lasting]
    told = "; ".join(f"{name}: {reason}" for name, reason in sorted(judge.reasons.items())[:2]) or "nothing"
    print(f"traffic: {chosen}: {len(judge.failed)} of {len(judge.pairs)} kinds of traffic failed; told: {told}",
          flush=True)
    if lasting:
        raise RuntimeError(f"{chosen} is not repaired: {lasting[0]}")
    return found


async def run(options):
    cluster, judge = Cluster(options.lab, 3), Judge(options.slack)
    traffic, draw = Traffic(cluster, judge), random.Random(options.seed)
    violations = collections.Counter()
    print(f"traffic: seed {options.seed}, {options.breaks} breaks, lab `{options.lab}`", flush=True)

    async def inject(probes):
        try:
            await inject_all()
        finally:
            traffic.is_ended = True
        for probe in probes:
            probe.cancel()

    async def inject_all():
        if unrest := await calm(judge, CALM_TIMEOUT_S):
            raise RuntimeError(f"before any break: {unrest[0]}")
        choices = [chosen for node in await traffic.nodes() for chosen in breaks.breaks(node)
                   if options.kind in chosen.kind and not (options.short and chosen.is_cut_off)]
        if not choices:
            raise RuntimeError(f"no break has `{options.kind}` in its kind")
        order = choices if options.all else draw.choices(choices, k=options.breaks)
        for number, chosen in enumerate(order, 1):
            for violation in await episode(traffic, chosen, draw.uniform(*options.hold)):
                violations[chosen.kind] += 1
                print(f"traffic: VIOLATION: break {number}, {chosen}: {violation}", flush=True)

    clock_folder = clocks.folder()
    clocks.install(clock_folder.name)
    try:
        async with asyncio.timeout(options.limit):
            await cluster.down()
            await cluster.up()
            await traffic.create()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(inject(traffic.start(tasks)))
    except Exception as error:
        for cause in getattr(error, "exceptions", [error]):
            violations["run"] += 1
            print(f"traffic: VIOLATION: {type(cause).__name__}: {cause}", flush=True)
    finally:
        if violations and cluster.folder.exists():
            folder = tempfile.mkdtemp(prefix="otherix-traffic-")
            cluster.copy_logs(folder)
            print(f"traffic: logs and journal are kept in {folder}", flush=True)
        if not options.keep:
            await cluster.down()
            clock_folder.cleanup()
    print(f"traffic: {sum(violations.values())} violations {dict(violations)}", flush=True)
    return 1 if violations else 0


def arguments():
    parser = argparse.ArgumentParser(prog="traffic", description=__doc__, epilog=(
        "Exits with 0 if there was no violation, otherwise with 1, and then prints the folder of logs and journal."))
    parser.add_argument("--breaks", type=int, default=100, help="number of breaks [100]")
    parser.add_argument("--seed", type=int, help="repeats the choices of an earlier run, not its timing [random]")
    parser.add_argument("--kind", default="", help="only breaks whose kind contains this text [all]")
    parser.add_argument("--all", action="store_true", help="each break of each node once")
    parser.add_argument("--short", action="store_true", help="no breaks that last until a node is unreachable")
    parser.add_argument("--hold", type=float, nargs=2, default=[4, 8], help="shortest and longest break in s [4 8]")
    parser.add_argument("--slack", type=float, default=0.0, help="seconds to add to the limit on a busy machine [0]")
    parser.add_argument("--limit", type=float, help="seconds after which the run ends as a violation [none]")
    parser.add_argument("--lab", default="traffic", help="the lab's name; an existing one is removed [traffic]")
    parser.add_argument("--keep", action="store_true", help="leave the lab as it is at the end")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(run_until_signal("traffic", arguments(), run)))
