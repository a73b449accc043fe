"""The lab under test, through `otherix-lab`, `ip` and a plain NATS client. Owns starting, hurting and looking into it; knows
nothing of what should be there."""
import asyncio
import json
import os
import shutil
import sqlite3
from pathlib import Path

import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

STREAM = "OTHERIX_EVENTS"
READ_WITHIN_S = 10  # far above what the next message of a stream that is read takes


class CommandFailed(Exception):
    """A command ended with an exit code that is not 0; the text is what it said."""


class Cluster:
    def __init__(self, name, nodes):
        self.name, self.nodes = name, nodes
        self.folder = Path("/var/lib/otherix-lab") / name
        self.url = self.user = self.password = None

    async def run(self, program, *arguments):
        """Runs a program, and gives what it printed and what it said."""
        # Of a session of its own: Ctrl-C is ours, to take everything down in order.
        process = await asyncio.create_subprocess_exec(
            program, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, start_new_session=True)
        try:
            printed, said = await process.communicate()
        except asyncio.CancelledError:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        if process.returncode:
            raise CommandFailed(f"{program} {' '.join(arguments)}: {said.decode().strip()}")
        return printed.decode(), said.decode()

    async def lab(self, *arguments):
        return await self.run("otherix-lab", "--lab", self.name, *arguments)

    async def up(self):
        await self.lab("up", "--nodes", str(self.nodes))
        status = json.loads((await self.lab("status", "-o", "json"))[0])
        credentials = json.loads((self.folder / "otherixd/credentials/admin.json").read_text())
        self.url, self.user, self.password = status["url"], credentials["user"], credentials["password"]

    async def down(self):
        await self.lab("down")

    async def whole(self):
        """Ends every fault, and returns when everything works again."""
        await self.lab("heal", *self.node_names())
        for target in ["otherixd", "nats", *self.node_names()]:
            await self.lab("start", target)

    def node_names(self):
        return [f"node-{node}" for node in range(1, self.nodes + 1)]

    async def connect(self):
        """A plain client that never gives up."""
        async def quiet(_error):
            pass

        return await nats.connect(
            self.url, user=self.user, password=self.password, max_reconnect_attempts=-1, reconnect_time_wait=0.1,
            connect_timeout=2, ping_interval=2, error_cb=quiet)

    async def links(self, node):
        """What the kernel says of the node's devices."""
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
            # nats-py's own ordered consumer falls behind at this size; pages of a plain one do not.
            consumer = ConsumerConfig(
                ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL, filter_subject="otherix.>",
                inactive_threshold=60, mem_storage=True)
            subscription = await client.jetstream().pull_subscribe("otherix.>", stream=STREAM, config=consumer)
            messages = []
            while not messages or messages[-1][0] < last:
                for message in await subscription.fetch(500, timeout=READ_WITHIN_S):
                    messages.append((message.metadata.sequence.stream, message.data))
            return messages
        finally:
            await client.close()

    async def verify_journal(self):
        """What otherixd itself says of the chain of digests; it is stopped for that."""
        await self.lab("stop", "otherixd")
        return (await self.run("otherixd", "journal", "verify", "--state", str(self.folder / "otherixd")))[0].strip()

    def panics(self):
        """Lines of the logs that tell of a panic."""
        found = []
        for log in sorted((self.folder / "logs").glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()
            found += [f"{log.name}: {line}" for line in lines if "panicked at" in line]
        return found

    def keep_logs(self, folder):
        """Copies what tells how something went wrong."""
        shutil.copytree(self.folder / "logs", folder, dirs_exist_ok=True)
        for kept in self.folder.glob("otherixd/journal.db*"):
            shutil.copy(kept, folder)


def find_programs(project):
    """Puts the programs of the workspace, and the set-up's nats-server, first on PATH."""
    built = os.environ.get("OTHERIX_BIN_DIR", str(project / "target/debug"))
    os.environ["PATH"] = f"{built}:{project / '.tools/bin'}:{os.environ['PATH']}:/usr/sbin:/sbin"
    for program in ["otherix-lab", "otherixd", "otherix-agent", "otherix"]:
        if not shutil.which(program):
            raise SystemExit(f"soak: error: there is no `{program}`: `make build` builds it")
