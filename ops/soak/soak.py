#!/usr/bin/env python3
"""Kills otherixd, nats and agents and partitions nodes at random while writers create and delete networks.

Then checks with independent tools that nothing acknowledged was lost or duplicated and nothing is left over.
`make soak` builds and runs it."""
import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True  # no files in the source folder

import checks
from cluster import Cluster, run_until_signal
from faults import Faults
from writers import Tally, Writer

PROGRESS_S = 15


def arguments():
    parser = argparse.ArgumentParser(prog="soak", description=__doc__, epilog=(
        "Exits with 0 if every check passed, otherwise with 1, and then prints the folder of logs and journal."))
    parser.add_argument("--seconds", type=float, default=600, help="duration of fault injection [600]")
    parser.add_argument("--seed", type=int, help="repeats the choices of an earlier run, not its timing [random]")
    parser.add_argument("--writers", type=int, default=8, help="concurrent writers [8]")
    parser.add_argument("--nodes", type=int, default=3, help="number of nodes [3]")
    parser.add_argument("--lab", default="soak", help="the lab's name; an existing lab of this name is removed [soak]")
    return parser.parse_args()


async def inject(options, cluster, tally):
    """Runs faults and writers for the given time; then waits until every request is answered."""
    seeded = random.Random(options.seed)
    faults = Faults(cluster, random.Random(seeded.random()))
    writers = [Writer(number, cluster, random.Random(seeded.random()), tally) for number in range(options.writers)]
    stop_faults, stop_writers = asyncio.Event(), asyncio.Event()

    async def progress():
        start = time.monotonic()
        while (passed := time.monotonic() - start) < options.seconds:
            await asyncio.sleep(min(PROGRESS_S, options.seconds - passed))
            print(f"soak: {time.monotonic() - start:.0f} s: {len(tally.created)} created, "
                  f"{len(tally.deleted)} deleted, {tally.retries} retries; {summary(faults.counts)}", flush=True)
        stop_faults.set()

    async def finish(*preceding):
        await asyncio.wait(preceding)
        await cluster.recover()
        for writer in writers:
            writer.settle()
        stop_writers.set()

    async with asyncio.TaskGroup() as tasks:  # the first failure cancels the others
        clock, injection = tasks.create_task(progress()), tasks.create_task(faults.run(stop_faults))
        tasks.create_task(finish(clock, injection))
        for writer in writers:
            tasks.create_task(writer.run(stop_writers))
    return faults, writers[0]


async def check(cluster, writer, tally):
    """Runs every check; returns the number of events and the time until the nodes had converged."""
    start = time.monotonic()
    client = await cluster.connect()

    async def nodes():
        networks = await checks.list_networks(writer, client)
        found = checks.ready(networks, cluster, tally)
        for node in cluster.node_names():
            found += checks.devices(node, await cluster.links(node), networks)
        return found

    async def stream():
        journal = cluster.journal()
        return checks.stream(await cluster.stream(len(journal)), journal)

    try:
        writer.settle()
        found = await checks.wait_until_clean(nodes)
        converged_s = time.monotonic() - start
        # Outcomes may still arrive between reading the stream and the journal.
        found += await checks.wait_until_clean(stream)
    finally:
        await client.close()
    journal = cluster.journal()
    found += checks.decisions(journal, tally) + cluster.panics()
    for violation in found:
        tally.add_violation(violation)
    print(f"soak: otherixd journal verify: {await cluster.verify_journal()}", flush=True)
    return len(journal), converged_s


async def soak(options):
    cluster, tally = Cluster(options.lab, options.nodes), Tally()
    print(f"soak: seed {options.seed}, {options.seconds:.0f} s, {options.writers} writers, {options.nodes} nodes, "
          f"lab `{options.lab}`", flush=True)
    try:
        await cluster.down()
        await cluster.up()
        faults, writer = await inject(options, cluster, tally)
        events, converged_s = await check(cluster, writer, tally)
        print(f"soak: {len(tally.created)} networks created and {len(tally.deleted)} deleted by {tally.sent} requests "
              f"({tally.retries} of them retries), {events} events; {summary(faults.counts)}; longest time "
              f"without an acknowledgement {tally.longest_gap_s:.1f} s; converged {converged_s:.1f} s after the last "
              f"fault; {len(tally.violations)} violations", flush=True)
    except Exception as error:
        for cause in getattr(error, "exceptions", [error]):
            tally.add_violation(f"{type(cause).__name__}: {cause}")
    finally:
        if tally.violations and cluster.folder.exists():
            folder = tempfile.mkdtemp(prefix="otherix-soak-")
            cluster.copy_logs(folder)
            print(f"soak: logs and journal are kept in {folder}", flush=True)
        await cluster.down()
    return 1 if tally.violations else 0


def summary(counts):
    return "killed otherixd {otherixd}, nats {nats}, agents {agent} times, {partition} partitions".format_map(
        {kind: counts[kind] for kind in ["otherixd", "nats", "agent", "partition"]})


if __name__ == "__main__":
    sys.exit(asyncio.run(run_until_signal("soak", arguments(), soak)))
