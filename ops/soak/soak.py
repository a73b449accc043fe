#!/usr/bin/env python3
"""Kills otherixd, nats and agents and partitions nodes at random while writers create and delete networks.

Then checks with independent tools that nothing acknowledged was lost or duplicated and nothing is left over.
`make soak` builds and runs it."""
import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True  # no files in the source folder

import checks
from cluster import Cluster, find_programs
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
    chance = random.Random(options.seed)
    faults = Faults(cluster, random.Random(chance.random()))
    writers = [Writer(number, cluster, random.Random(chance.random()), tally) for number in range(options.writers)]
    stop_faults, stop_writers = asyncio.Event(), asyncio.Event()

    async def progress():
        began = time.monotonic()
        while (passed := time.monotonic() - began) < options.seconds:
            await asyncio.sleep(min(PROGRESS_S, options.seconds - passed))
            print(f"soak: {time.monotonic() - began:.0f} s: {len(tally.created)} created, "
                  f"{len(tally.deleted)} deleted, {tally.retries} retries; {counted(faults.done)}", flush=True)
        stop_faults.set()

    async def wind_down(*before):
        await asyncio.wait(before)
        await cluster.recover()
        for writer in writers:
            writer.settle()
        stop_writers.set()

    async with asyncio.TaskGroup() as tasks:  # the first failure cancels the others
        clock, injection = tasks.create_task(progress()), tasks.create_task(faults.run(stop_faults))
        tasks.create_task(wind_down(clock, injection))
        for writer in writers:
            tasks.create_task(writer.run(stop_writers))
    return faults, writers[0]


async def check(cluster, writer, tally):
    """Runs every check; returns the number of events and the time until the nodes had converged."""
    began = time.monotonic()
    client = await cluster.connect()

    async def nodes():
        networks = await checks.listed(writer, client)
        found = checks.ready(networks, cluster, tally)
        for node in cluster.node_names():
            found += checks.devices(node, await cluster.links(node), networks)
        return found

    async def copy():
        journal = cluster.journal()
        return checks.stream(await cluster.stream(len(journal)), journal)

    try:
        writer.settle()
        found = await checks.settled(nodes)
        settled_s = time.monotonic() - began
        # Outcomes may still arrive between reading the stream and the journal.
        found += await checks.settled(copy)
    finally:
        await client.close()
    journal = cluster.journal()
    found += checks.decisions(journal, tally) + cluster.panics()
    for fault in found:
        tally.wrong(fault)
    print(f"soak: otherixd journal verify: {await cluster.verify_journal()}", flush=True)
    return len(journal), settled_s


async def soak(options):
    cluster, tally = Cluster(options.lab, options.nodes), Tally()
    print(f"soak: seed {options.seed}, {options.seconds:.0f} s, {options.writers} writers, {options.nodes} nodes, "
          f"lab `{options.lab}`", flush=True)
    try:
        await cluster.down()
        await cluster.up()
        faults, writer = await inject(options, cluster, tally)
        events, settled_s = await check(cluster, writer, tally)
        print(f"soak: {len(tally.created)} networks created and {len(tally.deleted)} deleted by {tally.sent} requests "
              f"({tally.retries} of them retries), {events} events; {counted(faults.done)}; longest time "
              f"without an acknowledgement {tally.longest_silence_s:.1f} s; converged {settled_s:.1f} s after the last "
              f"fault; {len(tally.faults)} violations", flush=True)
    except Exception as error:
        for cause in getattr(error, "exceptions", [error]):
            tally.wrong(f"{type(cause).__name__}: {cause}")
    finally:
        if tally.faults and cluster.folder.exists():
            kept = tempfile.mkdtemp(prefix="otherix-soak-")
            cluster.keep_logs(kept)
            print(f"soak: logs and journal are kept in {kept}", flush=True)
        await cluster.down()
    return 1 if tally.faults else 0


def counted(done):
    return "killed otherixd {otherixd}, nats {nats}, agents {agent} times, {partition} partitions".format_map(
        {kind: done[kind] for kind in ["otherixd", "nats", "agent", "partition"]})


async def main():
    options = arguments()
    if os.geteuid() != 0:
        raise SystemExit("soak: error: network namespaces need root: run it as root, or with sudo")
    find_programs(Path(__file__).resolve().parents[2])
    options.seed = random.randrange(1 << 32) if options.seed is None else options.seed
    task = asyncio.create_task(soak(options))
    for number in [signal.SIGINT, signal.SIGTERM]:
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return 130


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
