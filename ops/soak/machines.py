#!/usr/bin/env python3
"""Boots VMs on all kinds of network, and kills agents, QEMU, launchers and nodes at random while VMs get orders.

No VM may ever have two processes, none may be lost, and nothing may be left of one that was deleted. `make machines`
builds and runs it."""
import argparse
import asyncio
import collections
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True  # no files in the source folder

from cluster import Cluster, CommandFailed, run_until_signal

OUTSIDE = "203.0.113.1"
PORT = 8000
IMAGE = f"http://{OUTSIDE}:{PORT}/tiny.img"
IMAGES = Path(__file__).resolve().parents[2] / ".tools/image"
NETWORKS = {
    "nat": ["--bridge-name", "br-nat", "--managed", "--egress", "nat", "--subnet", "10.70.0.0/24", "--dhcp"],
    "plain": ["--bridge-name", "br-plain", "--managed", "--subnet", "10.71.0.0/24", "--dhcp"],
    "span": ["--type", "overlay", "--subnet", "10.72.0.0/24", "--dhcp", "--egress", "nat"],
    "quiet": ["--type", "overlay", "--subnet", "10.73.0.0/24", "--dhcp"],
}
LOOK_PERIOD_S = 0.02
ROUNDS_BETWEEN_CHECKS = 25
SETTLE_TIMEOUT_S = 300
MAX_PAUSE_S = 1.5  # between a kill and the next
MAX_DOWN_S = 1.0  # of an agent or the control plane


def arguments():
    parser = argparse.ArgumentParser(prog="machines", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="kills [100]")
    parser.add_argument("--vms", type=int, default=8, help="VMs [8]")
    parser.add_argument("--nodes", type=int, default=3, help="number of nodes [3]")
    parser.add_argument("--seed", type=int, help="repeats the choices of an earlier run, not its timing [random]")
    parser.add_argument("--lab", default="machines-soak", help="the lab's name; an existing one is removed")
    return parser.parse_args()


def command_lines():
    """The command line of each process of this machine, by its id."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), Path(entry.path, "cmdline").read_bytes().split(b"\0")


class Processes:
    """QEMU's processes of the lab's VMs, as `/proc` has them."""

    def __init__(self, folder):
        self.folder, self.ids, self.violations, self.looks = os.fsencode(folder), set(), [], 0

    def of_vms(self):
        found = collections.defaultdict(list)
        for pid, arguments in command_lines():
            if b"qemu-system" in arguments[0]:
                text = b" ".join(arguments).decode(errors="replace")
                for vm in self.ids:
                    if vm in text:
                        found[vm].append(pid)
        return found

    def launchers(self):
        return [pid for pid, arguments in command_lines()
                if b"vm-launch" in arguments and arguments[-2].startswith(self.folder)]

    async def watch(self):
        """Looks for VMs with two processes until it is cancelled."""
        while True:
            self.looks += 1
            for vm, pids in self.of_vms().items():
                # A process that is being replaced by exec is one; one that has ended is gone at a second look.
                if len(pids) > 1 and len(again := self.of_vms()[vm]) > 1:
                    self.violations.append(f"VM {vm} has the processes {again}")
            await asyncio.sleep(LOOK_PERIOD_S)


class Scenario:
    def __init__(self, options, cluster):
        self.options, self.cluster = options, cluster
        self.random, self.processes = random.Random(options.seed), Processes(cluster.folder)
        self.counts, self.violations = collections.Counter(), self.processes.violations
        self.wanted = {}  # power by name
        self.repairs = set()

    async def otherix(self, *arguments):
        state = self.cluster.folder / "otherixd"
        output, _ = await self.cluster.run(
            "otherix", "--server", self.cluster.url, "--credentials", str(state / "credentials/admin.creds"),
            "--ca", str(state / "identity/tls/ca.pem"), *arguments)
        return output

    async def view(self, *arguments):
        return json.loads(await self.otherix(*arguments, "-o", "json"))

    async def create(self, name):
        number = int(name.removeprefix("vm-"))
        network = list(NETWORKS)[number % len(NETWORKS)]
        node = self.cluster.node_names()[number // len(NETWORKS) % self.cluster.nodes]
        vm = await self.view("vm", "create", name, "--image-url", IMAGE, "--arch", "amd64", "--network", network,
                             "--node", node, "--vcpus", "1", "--memory-mb", "96")
        self.wanted[name] = "running"
        self.processes.ids.add(vm["id"])

    async def begin(self):
        for name, options in NETWORKS.items():
            await self.otherix("network", "create", name, *options, "--wait")
        for number in range(self.options.vms):
            await self.create(f"vm-{number}")

    async def settled(self):
        """What is not as it is to be."""
        found, listed = [], (await self.view("vm", "list"))["data"]
        vms = {vm["name"]: vm for vm in listed}
        processes = self.processes.of_vms()
        for name, power in self.wanted.items():
            vm = vms.get(name)
            if vm is None:
                found.append(f"{name} is lost")
                continue
            expected = 0 if power == "stopped" else 1
            if vm.get("moving") or any("not removed" in warning for warning in vm["warnings"]):
                found.append(f"{name} moves, or there is a copy of it: {vm.get('moving')}, {vm['warnings']}")
            if vm["status"] != "ready" or vm["machine"]["phase"] != power:
                found.append(f"{name} is {vm['status']}, {vm['machine']['phase']}, not {power}: {vm['error']}")
            if len(processes[vm["id"]]) != expected:
                found.append(f"{name} has {len(processes[vm['id']])} processes, not {expected}")
        kept = {vm["id"] for name, vm in vms.items() if name in self.wanted}
        found += [f"a deleted VM, {vm}, has processes" for vm, pids in processes.items() if pids and vm not in kept]
        for node in self.cluster.node_names():
            found += await self.left_over(node, [vm for vm in listed if vm["node_name"] == node])
        return found

    async def left_over(self, node, vms):
        folders = {path.name for path in (self.cluster.folder / node / "vms").iterdir()}
        found = [f"{node} has a folder of {vm}" for vm in folders - {vm["id"] for vm in vms}]
        expected = {vm["nic"]["tap"] for vm in vms}
        taps = {link["ifname"] for link in await self.cluster.links(node)
                if link.get("linkinfo", {}).get("info_kind") == "tun" and link["ifname"].startswith("ot")
                and not link["ifname"].startswith("otwg")}
        return found + [f"{node}: taps {sorted(taps)}, not {sorted(expected)}"] * (taps != expected)

    async def settle(self):
        end = time.monotonic() + SETTLE_TIMEOUT_S
        while found := await self.settled():
            if time.monotonic() > end:
                self.violations.extend(found)
                return
            await asyncio.sleep(1)

    async def reach_each_other(self):
        """Each guest that runs answers its node; its address is the one that was decided."""
        for vm in (await self.view("vm", "list"))["data"]:
            if self.wanted.get(vm["name"]) != "running" or vm["nic"]["network_name"] in ("plain", "quiet"):
                continue  # their nodes have no address there
            end = time.monotonic() + SETTLE_TIMEOUT_S
            while True:
                try:
                    await self.cluster.lab("exec", vm["node_name"], "--", "ping", "-q", "-c1", "-W2", vm["nic"]["ip"])
                    break
                except CommandFailed:
                    if time.monotonic() > end:
                        self.violations.append(f"{vm['name']} does not answer at {vm['nic']['ip']}")
                        break

    async def fault(self):
        kind = self.random.choices(["agent", "qemu", "launcher", "otherixd", "reboot"], [8, 8, 4, 1, 1])[0]
        node = self.random.choice(self.cluster.node_names())
        if kind == "qemu":
            pids = [pid for pids in self.processes.of_vms().values() for pid in pids]
            if pids:
                self.kill(self.random.choice(sorted(pids)), kind)
        elif kind == "launcher":
            await self.catch_launcher()
        elif kind == "reboot":
            await self.cluster.lab("reboot", node)
            self.counts[kind] += 1
        else:
            target = node if kind == "agent" else kind
            _, message = await self.cluster.lab("kill", target)
            self.counts[kind] += "killed" in message
            self.start_later(target)

    def kill(self, pid, kind):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.counts[kind] += 1

    async def catch_launcher(self):
        """Kills the QEMU of a VM, and then the launcher of the next."""
        pids = [pid for pids in self.processes.of_vms().values() for pid in pids]
        if not pids:
            return
        self.kill(self.random.choice(sorted(pids)), "qemu")
        end = time.monotonic() + 3
        while time.monotonic() < end:
            for pid in self.processes.launchers():
                self.kill(pid, "launcher")
                return
            await asyncio.sleep(0)

    def start_later(self, target):
        async def work():
            await asyncio.sleep(self.random.uniform(0, MAX_DOWN_S))
            with contextlib.suppress(CommandFailed):  # killed again meanwhile; all are started before each check
                await self.cluster.lab("start", target)

        task = asyncio.create_task(work())
        self.repairs.add(task)
        task.add_done_callback(self.repairs.discard)

    async def order(self):
        """Tells a VM something, or replaces it. Refused is what makes no sense at the moment."""
        name = self.random.choice(sorted(self.wanted))
        verbs = ["stop", "start", "reboot", "reset", "replace", "move", "cancel"]
        verb = self.random.choices(verbs, [3, 4, 2, 2, 1, 5, 1])[0]
        with contextlib.suppress(CommandFailed):
            if verb == "replace":
                await self.otherix("vm", "delete", name)
                del self.wanted[name]
                await self.create(f"vm-{max(map(int, (other.removeprefix('vm-') for other in self.wanted))) + 1}")
            elif verb == "move":
                # To any node; what it was to do, it is to do there.
                await self.otherix("vm", "move", name, "--force")
                self.counts["moves"] += 1
            elif verb == "cancel":
                await self.otherix("vm", "move", name, "--cancel")
                self.counts["cancelled moves"] += 1
            elif verb == "stop":
                await self.otherix("vm", "stop", name, "--force")
                self.wanted[name] = "stopped"
            else:
                await self.otherix("vm", verb, name)
                self.wanted[name] = "running"
            self.counts["orders"] += 1

    async def calm(self):
        if self.repairs:
            await asyncio.wait(self.repairs)
        await self.cluster.recover()
        await self.start_failed()
        await self.settle()

    async def start_failed(self):
        """Starts what has failed: a VM whose process was killed six times within ten minutes of running."""
        for vm in (await self.view("vm", "list"))["data"]:
            if vm["machine"]["phase"] == "failed" and "failed 6 times in a row" in (vm["error"] or ""):
                await self.otherix("vm", "start", vm["name"])
                self.counts["started after six kills"] += 1

    async def run(self):
        await self.begin()
        await self.settle()
        await self.reach_each_other()
        for number in range(1, self.options.rounds + 1):
            await self.fault()
            if self.random.random() < 0.3:
                await self.order()
            await asyncio.sleep(self.random.uniform(0, MAX_PAUSE_S))
            if number % ROUNDS_BETWEEN_CHECKS == 0 or number == self.options.rounds:
                await self.calm()
                print(f"machines: {number} rounds; {dict(self.counts)}; {len(self.violations)} violations", flush=True)
            if self.violations:
                return
        await self.reach_each_other()
        for name in list(self.wanted):
            await self.otherix("vm", "delete", name, "--wait")
            del self.wanted[name]
        await self.settle()


async def machines(options):
    cluster = Cluster(options.lab, options.nodes)
    scenario, server = Scenario(options, cluster), None
    print(f"machines: seed {options.seed}, {options.vms} VMs, {options.rounds} rounds, lab `{options.lab}`", flush=True)
    watch = None
    try:
        await cluster.down()
        await cluster.up()
        server = await asyncio.create_subprocess_exec(
            "otherix-lab", "--lab", options.lab, "exec", "outside", "--", "python3", "-m", "http.server", str(PORT),
            "--bind", OUTSIDE, "--directory", str(IMAGES), stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL, start_new_session=True)
        watch = asyncio.create_task(scenario.processes.watch())
        await scenario.run()
        scenario.violations += cluster.panics()
    except Exception as error:
        scenario.violations.append(f"{type(error).__name__}: {error}")
    finally:
        if watch:
            watch.cancel()
        if scenario.violations and cluster.folder.exists():
            folder = tempfile.mkdtemp(prefix="otherix-machines-")
            cluster.copy_logs(folder)
            print(f"machines: logs and journal are kept in {folder}", flush=True)
        if server and server.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            await server.wait()
        await cluster.down()
    for violation in scenario.violations[:20]:
        print(f"machines: {violation}", flush=True)
    print(f"machines: {dict(scenario.counts)}, {scenario.processes.looks} looks at processes, "
          f"{len(scenario.violations)} violations", flush=True)
    return 1 if scenario.violations else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(run_until_signal("machines", arguments(), machines)))
