"""Properties that must hold after the faults have ended. Each check returns the violations that it found, as texts."""
import asyncio
import collections
import json
import time

SETTLE_WITHIN_S = 120  # time-out for the nodes to converge
POLL_S = 0.2
SHOWN = 5  # examples shown of one violation


async def settled(check):
    """Polls `check` until it finds no violation; returns those at the deadline."""
    end = time.monotonic() + SETTLE_WITHIN_S
    while (faults := await check()) and time.monotonic() < end:
        await asyncio.sleep(POLL_S)
    return faults


def ready(networks, cluster, tally):
    """Exactly the networks acknowledged and not deleted are listed, each ready on every node."""
    ids = [network["id"] for network in networks]
    acknowledged = collections.Counter(tally.created.keys() - tally.deleted)
    faults = surplus("listed networks", collections.Counter(ids), acknowledged)
    waiting = [network["name"] for network in networks
               if (network["status"]["ready"], network["status"]["expected"]) != (cluster.nodes, cluster.nodes)]
    if waiting:
        faults.append(f"not ready on every node: {some(waiting)}")
    return faults


async def listed(writer, client):
    networks, cursor = [], None
    while True:
        page = await writer.request(client, "list", {"limit": 200, "cursor": cursor}, {})
        networks += page["data"]
        cursor = page["meta"].get("next_cursor")
        if not cursor:
            return networks


def decisions(journal, tally):
    """Every acknowledged decision is in the journal exactly once, and no others are."""
    found = {"network.created": collections.Counter(), "network.deleted": collections.Counter()}
    positions, faults = {}, []
    for number, (position, kind, body) in enumerate(journal, 1):
        if position != number:
            return [f"position {position} where {number} is expected"]
        name = kind.removeprefix("dev.otherix.").removesuffix(".v1")
        if name in found:
            network = json.loads(body)["subject"].removeprefix("network/")
            found[name][network] += 1
            positions[name, network] = position
    faults += surplus("network.created", found["network.created"], collections.Counter(tally.created.keys()))
    faults += surplus("network.deleted", found["network.deleted"], collections.Counter(tally.deleted))
    for network, created in tally.created.items():
        if positions.get(("network.created", network), created["position"]) != created["position"]:
            faults.append(f"{network} was answered with position {created['position']}")
    return faults


def devices(node, links, networks):
    """The node has one bridge for each network, with its spec, and no other device of otherix."""
    owned = [link for link in links if link.get("ifalias", "").startswith("otherix:")]
    ours = {link["ifname"]: link for link in owned if link["ifname"] != "otwg0"}
    incomplete = [link["ifname"] for link in links if link["ifname"].startswith("ot.")]
    faults = [f"{node}: left over: {name}" for name in incomplete]
    bridges = {network["bridge_name"]: network for network in networks}
    faults += [f"{node}: {fault}" for fault in surplus(
        "bridges", collections.Counter(ours.keys()), collections.Counter(bridges.keys()))]
    for name in ours.keys() & bridges.keys():
        link, network = ours[name], bridges[name]
        as_specified = (link["linkinfo"]["info_kind"] == "bridge" and link["mtu"] == network["mtu"]
                        and "UP" in link["flags"] and link["ifalias"].endswith(network["id"]))
        if not as_specified:
            faults.append(f"{node}: {name} differs from the spec of {network['name']}: {json.dumps(link)}")
    return faults


def stream(messages, journal):
    """The stream equals the journal: sequence and position, byte for byte."""
    if len(messages) != len(journal):
        return [f"the stream has {len(messages)} events, the journal {len(journal)}"]
    for (sequence, data), (position, _, body) in zip(messages, journal):
        if sequence != position or data != (body if isinstance(body, bytes) else body.encode()):
            return [f"sequence {sequence} of the stream is not position {position} of the journal"]
    return []


def surplus(what, found, wanted):
    faults = []
    if more := found - wanted:
        faults.append(f"{what} too many: {some(more.elements())}")
    if less := wanted - found:
        faults.append(f"{what} missing: {some(less.elements())}")
    return faults


def some(items):
    items = sorted(items)
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more
