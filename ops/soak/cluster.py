"""The lab under test.

Starts it, injects faults and reads its state through `otherix-lab`, `ip` and a plain NATS client.
"""
import asyncio
import json
import os
import random
import shutil
import signal
import sqlite3
import ssl
from pathlib import Path

import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

STREAM = "OTHERIX_EVENTS"
READ_TIMEOUT_S = 10  # time-out for the next page of the stream


class CommandFailed(Exception):
    """A command ended with a non-zero exit code; the text is its standard error."""


class Cluster:
    def __init__(self, name, nodes):
        self.name, self.nodes = name, nodes
        self.folder = Path("/var/lib/otherix-lab") / name
        self.url = self.user = self.password = None

    async def run(self, program, *arguments):
        """Runs a program, and returns its standard output and error."""
        # A separate session, so that Ctrl-C reaches this process only, which then shuts down gracefully.
        process = await asyncio.create_subprocess_exec(
            program, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, start_new_session=True)
        try:
            output, errors = await process.communicate()
        except asyncio.CancelledError:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        if process.returncode:
            raise CommandFailed(f"{program} {' '.join(arguments)}: {errors.decode().strip()}")
        return output.decode(), errors.decode()

    async def lab(self, *arguments):
        return await self.run("otherix-lab", "--lab", self.name, *arguments)

    async def up(self):
        await self.lab("up", "--nodes", str(self.nodes))
        status = json.loads((await self.lab("status", "-o", "json"))[0])
        credentials = json.loads((self.folder / "otherixd/credentials/admin.json").read_text())
        self.url, self.user, self.password = status["url"], credentials["user"], credentials["password"]

    async def down(self):
        await self.lab("down")

    async def recover(self):
        """Ends every fault, and returns when every process is operational."""
        await self.lab("heal", *self.node_names())
        for target in ["otherixd", "nats", *self.node_names()]:
            await self.lab("start", target)

    def node_names(self):
        return [f"node-{node}" for node in range(1, self.nodes + 1)]

    async def connect(self):
        """A plain client that reconnects without limit."""
        async def ignore(_error):
            pass

        tls = ssl.create_default_context(cafile=self.folder / "otherixd/identity/tls/ca.pem")
        return await nats.connect(
            self.url, tls=tls, user=self.user, password=self.password, max_reconnect_attempts=-1,
            reconnect_time_wait=0.1, connect_timeout=2, ping_interval=2, error_cb=ignore)

    async def links(self, node):
        """The node's devices, as its kernel lists them."""
        return json.loads((await self.lab("exec", node, "--", "ip", "-d", "-j", "link", "show"))[0])

    def journal(self):
        """Every event: position, type, body."""
        journal = sqlite3.connect(f"file:{self.folder / 'otherixd/journal.db'}?mode=ro", uri=True)
        try:
            return journal.execute("SELECT position, type, body FROM events ORDER BY position").fetchall()
        finally:
            journal.close()

    async def stream(self, last):
        """The stream's messages up to the sequence `last`, as sequence and bytes."""
        client = await self.connect()
        try:
            # nats-py's ordered consumer is too slow at this size; pages of a pull consumer are not.
            consumer = ConsumerConfig(
                ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL, filter_subject="otherix.>",
                inactive_threshold=60, mem_storage=True)
            subscription = await client.jetstream().pull_subscribe("otherix.>", stream=STREAM, config=consumer)
            messages = []
            while not messages or messages[-1][0] < last:
                for message in await subscription.fetch(500, timeout=READ_TIMEOUT_S):
                    messages.append((message.metadata.sequence.stream, message.data))
            return messages
        finally:
            await client.close()

    async def verify_journal(self):
        """Stops otherixd, and returns the output of `otherixd journal verify`."""
        await self.lab("stop", "otherixd")
        return (await self.run("otherixd", "journal", "verify", "--state", str(self.folder / "otherixd")))[0].strip()

    def panics(self):
        """Lines of the logs that report a panic."""
        found = []
        for log in sorted((self.folder / "logs").glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()
            found += [f"{log.name}: {line}" for line in lines if "panicked at" in line]
        return found

    def copy_logs(self, folder):
        """Copies logs and journal for diagnosis."""
        shutil.copytree(self.folder / "logs", folder, dirs_exist_ok=True)
        for file in self.folder.glob("otherixd/journal.db*"):
            shutil.copy(file, folder)


async def run_until_signal(name, options, run):
    """Runs `run(options)` as root, with a seed and the workspace's programs, until it ends or a signal cancels it.

    Returns the exit code."""
    if os.geteuid() != 0:
        raise SystemExit(f"{name}: error: network namespaces need root: run it as root, or with sudo")
    find_programs(name, Path(__file__).resolve().parents[2])
    options.seed = random.randrange(1 << 32) if options.seed is None else options.seed
    task = asyncio.create_task(run(options))
    for number in [signal.SIGINT, signal.SIGTERM]:
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return 130


def find_programs(name, project):
    """Puts the workspace's programs and the installed nats-server first on PATH."""
    built = os.environ.get("OTHERIX_BIN_DIR", str(project / "target/debug"))
    os.environ["PATH"] = f"{built}:{project / '.tools/bin'}:{os.environ['PATH']}:/usr/sbin:/sbin"
    for program in ["otherix-lab", "otherixd", "otherix-agent", "otherix"]:
        if not shutil.which(program):
            raise SystemExit(f"{name}: error: `{program}` not found: run `make build`")
