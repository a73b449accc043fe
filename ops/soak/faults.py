"""Faults: kill -9 of processes and partitions of nodes, at random, one upon the other; what is killed while it starts is killed
too."""
import asyncio
import collections

from cluster import CommandFailed

BETWEEN_S = 1.5  # between faults, on average
DOWN_S = 1.5  # at most, until what was killed is started again
CUT_S = 6.0  # at most, until a partition is healed
PARTITIONS = 0.25  # so many of the faults of nodes are partitions, the others kills


class Faults:
    def __init__(self, cluster, random):
        self.cluster, self.random = cluster, random
        self.done = collections.Counter()
        self.repairs = set()

    async def run(self, stop):
        """Until `stop`; then every repair that was begun has ended."""
        while not stop.is_set():
            try:
                await self.fault()
            except CommandFailed as failure:
                # A busy kernel may hold a process for long. If it is more than that, the end will show it.
                print(f"soak: a fault came to nothing: {failure}", flush=True)
            try:
                await asyncio.wait_for(stop.wait(), self.random.expovariate(1 / BETWEEN_S))
            except asyncio.TimeoutError:
                pass
        if self.repairs:
            await asyncio.wait(self.repairs)

    async def fault(self):
        kind = self.random.choice(["otherixd", "nats", "agent"])
        target = self.random.choice(self.cluster.node_names()) if kind == "agent" else kind
        if kind == "agent" and self.random.random() < PARTITIONS:
            kind = "partition"
        verb = "partition" if kind == "partition" else "kill"
        try:
            _, said = await self.cluster.lab(verb, target)
            self.done[kind] += "cut off, until" in said or "killed" in said
        finally:
            if kind == "partition":
                self.repair(self.random.uniform(0, CUT_S), "heal", target)
            elif kind != "nats":  # otherixd starts it again by itself
                self.repair(self.random.uniform(0, DOWN_S), "start", target)

    def repair(self, after_s, verb, target):
        async def work():
            await asyncio.sleep(after_s)
            try:
                await self.cluster.lab(verb, target)
            except CommandFailed:
                pass  # killed again meanwhile; at the end everything is started

        task = asyncio.create_task(work())
        self.repairs.add(task)
        task.add_done_callback(self.repairs.discard)
