"""Fault injection: SIGKILL of processes and partitions of nodes, at random and overlapping, also during starts."""
import asyncio
import collections

from cluster import CommandFailed

FAULT_INTERVAL_S = 1.5  # mean time between faults
MAX_DOWN_S = 1.5  # longest time until a killed process is restarted
MAX_PARTITION_S = 6.0  # longest partition
PARTITION_FRACTION = 0.25  # fraction of node faults that are partitions; the others are kills


class Faults:
    def __init__(self, cluster, random):
        self.cluster, self.random = cluster, random
        self.counts = collections.Counter()
        self.repairs = set()

    async def run(self, stop):
        """Injects faults until `stop`, and then waits for the repairs under way."""
        while not stop.is_set():
            try:
                await self.fault()
            except CommandFailed as failure:
                # A busy kernel may delay a command beyond its time-out; a real failure shows in the checks.
                print(f"soak: a fault could not be injected: {failure}", flush=True)
            try:
                await asyncio.wait_for(stop.wait(), self.random.expovariate(1 / FAULT_INTERVAL_S))
            except asyncio.TimeoutError:
                pass
        if self.repairs:
            await asyncio.wait(self.repairs)

    async def fault(self):
        kind = self.random.choice(["otherixd", "nats", "agent"])
        target = self.random.choice(self.cluster.node_names()) if kind == "agent" else kind
        if kind == "agent" and self.random.random() < PARTITION_FRACTION:
            kind = "partition"
        verb = "partition" if kind == "partition" else "kill"
        try:
            _, message = await self.cluster.lab(verb, target)
            self.counts[kind] += "cut off, until" in message or "killed" in message
        finally:
            if kind == "partition":
                self.repair(self.random.uniform(0, MAX_PARTITION_S), "heal", target)
            elif kind != "nats":  # otherixd restarts it
                self.repair(self.random.uniform(0, MAX_DOWN_S), "start", target)

    def repair(self, after_s, verb, target):
        async def work():
            await asyncio.sleep(after_s)
            try:
                await self.cluster.lab(verb, target)
            except CommandFailed:
                pass  # killed again meanwhile; all are started at the end

        task = asyncio.create_task(work())
        self.repairs.add(task)
        task.add_done_callback(self.repairs.discard)
