#!/usr/bin/env python3
"""Boots the Debian image in a lab, as any cloud image: cloud-init with a key for SSH, DHCP, a larger disk.

`make test-debian-image` builds the image and runs this. Without KVM it takes some minutes."""
import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True  # no files in the source folder
PROJECT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(PROJECT / "ops/soak"))

from cluster import Cluster, CommandFailed, run_until_signal  # noqa: E402

OUTSIDE, PORT = "203.0.113.1", 8000
BOOT_TIMEOUT_S = 600


def arguments():
    parser = argparse.ArgumentParser(prog="debian", description=__doc__)
    parser.add_argument("--lab", default="debian-image", help="the lab's name; an existing one is removed")
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


class Guest:
    def __init__(self, cluster, address, key):
        self.cluster, self.address, self.key = cluster, address, key

    async def ssh(self, command):
        options = ["-i", str(self.key), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o",
                   "LogLevel=ERROR", "-o", "ConnectTimeout=10", "-o", "BatchMode=yes"]
        output, _ = await self.cluster.lab("exec", "node-1", "--", "ssh", *options, f"debian@{self.address}", command)
        return output.strip()

    async def wait(self):
        end = time.monotonic() + BOOT_TIMEOUT_S
        while True:
            try:
                return await self.ssh("true")
            except CommandFailed as failure:
                if time.monotonic() > end:
                    raise TimeoutError(f"no login within {BOOT_TIMEOUT_S} s: {failure}") from failure
                await asyncio.sleep(1)


def expect(what, found, is_right):
    print(f"debian: {what}: {found}", flush=True)
    if not is_right:
        raise AssertionError(f"{what}: {found}")


async def check(cluster, otherix, folder):
    key = folder / "key"
    await cluster.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    await otherix("network", "create", "app", "--bridge-name", "br-app", "--managed", "--egress", "nat", "--subnet",
                  "10.60.0.0/24", "--dhcp", "--wait")
    started = time.monotonic()
    text = await otherix("vm", "create", "deb", "--image-url", f"http://{OUTSIDE}:{PORT}/debian.qcow2", "--arch",
                         "amd64", "--network", "app", "--vcpus", "2", "--memory-mb", "768", "--disk-gib", "4",
                         "--ssh-key", f"{key}.pub", "--wait", "--wait-timeout", "10m", "-o", "json")
    vm = json.loads(text)
    expect("phase", vm["machine"]["phase"], vm["machine"]["phase"] == "running")
    guest = Guest(cluster, vm["nic"]["ip"], key)
    await guest.wait()
    print(f"debian: from `vm create` to a login: {time.monotonic() - started:.0f} s", flush=True)
    status = await guest.ssh("cloud-init status --wait || true")
    expect("cloud-init", status.splitlines()[-1], "done" in status)
    expect("host name", name := await guest.ssh("hostname"), name == "deb")
    link = json.loads(await guest.ssh("ip -j -4 address show scope global"))[0]
    address = link["addr_info"][0]["local"]
    expect("address", address, address == vm["nic"]["ip"])
    expect("MTU", link["mtu"], link["mtu"] == 1500)
    size = int(await guest.ssh("df --output=size -B1M / | tail -1"))
    expect("root file system, MiB", size, size > 3500)
    await guest.ssh(f"ping -q -c1 -W5 {OUTSIDE}")
    print(f"debian: reaches {OUTSIDE} by NAT", flush=True)
    await otherix("vm", "stop", "deb", "--wait", "--wait-timeout", "3m")
    await otherix("vm", "delete", "deb", "--wait")


async def test(options):
    cluster, server = Cluster(options.lab, 1), None

    async def otherix(*command):
        state = cluster.folder / "otherixd"
        output, _ = await cluster.run(
            "otherix", "--server", cluster.url, "--credentials", str(cluster.credentials), "--ca",
            str(state / "identity/tls/ca.pem"), *command)
        return output

    try:
        await cluster.down()
        await cluster.up()
        server = await asyncio.create_subprocess_exec(
            "otherix-lab", "--lab", options.lab, "exec", "outside", "--", "python3", "-m", "http.server", str(PORT),
            "--bind", OUTSIDE, "--directory", str(PROJECT / ".tools/image"), stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL, start_new_session=True)
        with tempfile.TemporaryDirectory() as folder:
            await check(cluster, otherix, Path(folder))
        print("debian: ok", flush=True)
        return 0
    except Exception as error:
        print(f"debian: FAILED: {type(error).__name__}: {error}", flush=True)
        for log in cluster.folder.glob("node-1/vms/*/console.log"):
            print("\n".join(log.read_text(errors="replace").splitlines()[-30:]), flush=True)
        return 1
    finally:
        if server and server.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            await server.wait()
        await cluster.down()


if __name__ == "__main__":
    sys.exit(asyncio.run(run_until_signal("debian", arguments(), test)))
