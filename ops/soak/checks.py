"""Properties that must hold after the faults have ended. Each check returns a list of violations."""
import asyncio
import collections
import json
import time

CONVERGENCE_TIMEOUT_S = 120
POLL_S = 0.2
MAX_EXAMPLES = 5  # examples shown of one violation


async def wait_until_clean(check):
    """Polls `check` until it finds no violation; returns those at the deadline."""
    end = time.monotonic() + CONVERGENCE_TIMEOUT_S
    while (violations := await check()) and time.monotonic() < end:
        await asyncio.sleep(POLL_S)
    return violations


def ready(networks, cluster, tally):
    """Exactly the networks acknowledged and not deleted are listed, each ready on every node."""
    ids = [network["id"] for network in networks]
    acknowledged = collections.Counter(tally.created.keys() - tally.deleted)
    violations = count_differences("listed networks", collections.Counter(ids), acknowledged)
    waiting = [network["name"] for network in networks
               if (network["status"]["ready"], network["status"]["expected"]) != (cluster.nodes, cluster.nodes)]
    if waiting:
        violations.append(f"not ready on every node: {examples(waiting)}")
    return violations


async def list_networks(writer, client):
    networks, cursor = [], None
    while True:
        page = await writer.request(client, "list", {"limit": 200, "cursor": cursor}, {})
        networks += page["data"]
        cursor = page["meta"].get("next_cursor")
        if not cursor:
            # Deleted networks are listed until every node has removed them.
            return [network for network in networks if network["deleted_at"] is None]


def decisions(journal, tally):
    """Every acknowledged decision is in the journal exactly once, and no others are."""
    found = {"network.created": collections.Counter(), "network.deleted": collections.Counter()}
    positions, violations = {}, []
    for number, (position, kind, body) in enumerate(journal, 1):
        if position != number:
            return [f"position {position} where {number} is expected"]
        # Whatever the version of the event.
        name = kind.removeprefix("dev.otherix.").rpartition(".")[0]
        if name in found:
            network = json.loads(body)["subject"].removeprefix("network/")
            found[name][network] += 1
            positions[name, network] = position
    created = collections.Counter(tally.created.keys())
    violations += count_differences("network.created", found["network.created"], created)
    violations += count_differences("network.deleted", found["network.deleted"], collections.Counter(tally.deleted))
    for network, answer in tally.created.items():
        if positions.get(("network.created", network), answer["position"]) != answer["position"]:
            violations.append(f"{network} was answered with position {answer['position']}")
    return violations


def devices(node, links, networks):
    """The node has one bridge for each network, with its spec, and no other device of otherix."""
    owned = [link for link in links if link.get("ifalias", "").startswith("otherix:")]
    ours = {link["ifname"]: link for link in owned if link["ifname"] != "otwg0"}
    incomplete = [link["ifname"] for link in links if link["ifname"].startswith("ot.")]
    violations = [f"{node}: left over: {name}" for name in incomplete]
    bridges = {network["bridge_name"]: network for network in networks}
    violations += [f"{node}: {violation}" for violation in count_differences(
        "bridges", collections.Counter(ours.keys()), collections.Counter(bridges.keys()))]
    for name in ours.keys() & bridges.keys():
        link, network = ours[name], bridges[name]
        matches_spec = (link["linkinfo"]["info_kind"] == "bridge" and link["mtu"] == network["mtu"]
                        and "UP" in link["flags"] and link["ifalias"].endswith(network["id"]))
        if not matches_spec:
            violations.append(f"{node}: {name} differs from the spec of {network['name']}: {json.dumps(link)}")
    return violations


def stream(messages, journal):
    """The stream equals the journal: sequence and position, byte for byte."""
    if len(messages) != len(journal):
        return [f"the stream has {len(messages)} events, the journal {len(journal)}"]
    for (sequence, data), (position, _, body) in zip(messages, journal):
        if sequence != position or data != (body if isinstance(body, bytes) else body.encode()):
            return [f"sequence {sequence} of the stream is not position {position} of the journal"]
    return []


def count_differences(what, found, expected):
    violations = []
    if extra := found - expected:
        violations.append(f"{what} not expected: {examples(extra.elements())}")
    if missing := expected - found:
        violations.append(f"{what} missing: {examples(missing.elements())}")
    return violations


def examples(items):
    items = sorted(items)
    more = f" and {len(items) - MAX_EXAMPLES} more" if len(items) > MAX_EXAMPLES else ""
    return ", ".join(items[:MAX_EXAMPLES]) + more
