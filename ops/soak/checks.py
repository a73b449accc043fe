"""What must hold when everything works again: each check gives the faults that it found, as texts."""
import asyncio
import collections
import json
import time

SETTLE_WITHIN_S = 120  # for the nodes to be as they should once everything works again
POLL_S = 0.2
SHOWN = 5  # examples of one fault


async def settled(look):
    """Looks until there is no fault, and gives those there are at the deadline."""
    end = time.monotonic() + SETTLE_WITHIN_S
    while (faults := await look()) and time.monotonic() < end:
        await asyncio.sleep(POLL_S)
    return faults


def ready(networks, cluster, tally):
    """The networks that are listed are those that were acknowledged and not deleted, each ready on every node."""
    ids = [network["id"] for network in networks]
    faults = surplus("listed networks", collections.Counter(ids), collections.Counter(tally.created.keys() - tally.deleted))
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
    """Nothing acknowledged is missing from the journal or doubled, and nothing is there that was not asked for."""
    found = {"network.created": collections.Counter(), "network.deleted": collections.Counter()}
    positions, faults = {}, []
    for number, (position, kind, body) in enumerate(journal, 1):
        if position != number:
            return [f"position {position} in place {number}"]
        name = kind.removeprefix("dev.otherix.").removesuffix(".v1")
        if name in found:
            network = json.loads(body)["subject"].removeprefix("network/")
            found[name][network] += 1
            positions[name, network] = position
    faults += surplus("network.created", found["network.created"], collections.Counter(tally.created.keys()))
    faults += surplus("network.deleted", found["network.deleted"], collections.Counter(tally.deleted))
    for network, made in tally.created.items():
        if positions.get(("network.created", network), made["position"]) != made["position"]:
            faults.append(f"{network} was answered with position {made['position']}")
    return faults


def devices(node, links, networks):
    """The node has one bridge for each network, as it was asked for, and nothing else of ours."""
    ours = {link["ifname"]: link for link in links if link.get("ifalias", "").startswith("otherix:") and link["ifname"] != "otwg0"}
    half_made = [link["ifname"] for link in links if link["ifname"].startswith("ot.")]
    faults = [f"{node}: left over: {name}" for name in half_made]
    bridges = {network["bridge_name"]: network for network in networks}
    faults += [f"{node}: {fault}" for fault in surplus(
        "bridges", collections.Counter(ours.keys()), collections.Counter(bridges.keys()))]
    for name in ours.keys() & bridges.keys():
        link, network = ours[name], bridges[name]
        is_as_wanted = (link["linkinfo"]["info_kind"] == "bridge" and link["mtu"] == network["mtu"]
                        and "UP" in link["flags"] and link["ifalias"].endswith(network["id"]))
        if not is_as_wanted:
            faults.append(f"{node}: {name} is not as {network['name']} wants it: {json.dumps(link)}")
    return faults


def stream(messages, journal):
    """The stream is the journal: sequence for position, byte for byte."""
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
