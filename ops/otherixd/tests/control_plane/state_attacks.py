"""Tries to change a bucket, or anything else, as a user who may watch it. Prints what each attempt got.

Arguments: the server's URL, the user's credentials file for the buckets, and keys of entries: one that exists, and one
that was deleted.
"""
import asyncio, json, sys
import creds, nats

URL, FILE, KEY, GONE = sys.argv[1:]
STREAM = "KV_OTHERIX_NETWORKS"
API = "$JS.API"


async def main():
    violations = []

    async def on_error(error):
        violations.append(str(error))

    client = await nats.connect(URL, error_cb=on_error, **creds.options(FILE))
    results = {}

    async def refused(subject, body=b"", headers=None):
        """Whether the server refuses to take a message."""
        violations.clear()
        await client.publish(subject, body, headers=headers)
        await client.flush()
        for _ in range(100):
            if any("permissions violation" in text.lower() for text in violations):
                return "refused"
            # The error is reported by another task.
            await asyncio.sleep(0.02)
        return "taken"

    value = json.dumps({"data": {"name": "forged"}, "meta": {"position": 1}}).encode()
    results["put"] = await refused(f"$KV.OTHERIX_NETWORKS.{KEY}", value)
    results["delete"] = await refused(f"$KV.OTHERIX_NETWORKS.{KEY}", b"", {"KV-Operation": "DEL"})
    purge = {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
    results["purge"] = await refused(f"$KV.OTHERIX_NETWORKS.{KEY}", b"", purge)
    for verb in ("UPDATE", "DELETE", "PURGE", "CREATE", "MSG.DELETE", "SNAPSHOT", "LEADER.STEPDOWN"):
        results[f"stream {verb}"] = await refused(f"{API}.STREAM.{verb}.{STREAM}", b"{}")
    for subject in (
        "control.js.CONSUMER.CREATE.OTHERIX_EVENTS",
        "state.deliver.x",
        f"{API}.DIRECT.GET.{STREAM}",
        f"{API}.CONSUMER.MSG.NEXT.{STREAM}.x",
        f"{API}.CONSUMER.NAMES.{STREAM}",
        f"{API}.STREAM.CREATE.MINE",
        f"{API}.CONSUMER.DURABLE.CREATE.{STREAM}.x",
        f"{API}.STREAM.INFO.OTHERIX_EVENTS",
        "otherix.evt.v1.x",
    ):
        results[subject] = await refused(subject, b"{}")

    # The server publishes answers wherever a request says.
    targets = [f"{API}.STREAM.{verb}.{stream}" for verb in ("DELETE", "PURGE", "UPDATE", "CREATE", "MSG.DELETE")
               for stream in (STREAM, "OTHERIX_EVENTS")]
    targets += [f"$KV.OTHERIX_NETWORKS.{KEY}", "otherix.evt.v1.network.deleted.x", "live.otherix.evt.v1.x",
                "control.js.CONSUMER.CREATE.OTHERIX_EVENTS", f"control.js.CONSUMER.CREATE.{STREAM}",
                f"control.js.CONSUMER.CREATE.{STREAM}.x.$KV.>", "state.deliver.x", f"$JS.FC.{STREAM}.x"]
    last = {"last_by_subj": f"$KV.OTHERIX_NETWORKS.{GONE}"}
    consumer = {"stream_name": STREAM, "config": {"deliver_subject": "x", "ack_policy": "none", "mem_storage": True}}
    triggers = [(f"{API}.STREAM.INFO.{STREAM}", None), (f"{API}.STREAM.MSG.GET.{STREAM}", {"seq": 1}),
                (f"{API}.STREAM.MSG.GET.{STREAM}", last), (f"{API}.STREAM.MSG.GET.{STREAM}", {"seq": 999999}),
                (f"{API}.CONSUMER.INFO.{STREAM}.x", None), (f"{API}.CONSUMER.DELETE.{STREAM}.x", None),
                (f"{API}.CONSUMER.CREATE.{STREAM}", consumer), (f"$JS.FC.{STREAM}.x", None)]
    for subject, body in triggers:
        for target in targets:
            await client.publish(subject, b"" if body is None else json.dumps(body).encode(), reply=target)
    # Consumers deliver wherever they are asked to.
    for number, target in enumerate(targets):
        for headers_only in (False, True):
            name = f"a{number}{int(headers_only)}"
            config = {"name": name, "deliver_subject": target, "deliver_policy": "all", "ack_policy": "none",
                      "mem_storage": True, "headers_only": headers_only, "idle_heartbeat": 100_000_000}
            body = json.dumps({"stream_name": STREAM, "config": config, "action": "create"}).encode()
            await client.request(f"{API}.CONSUMER.CREATE.{STREAM}.{name}", body, timeout=5)
    await client.flush()
    # The server has worked on all of it.
    await client.request(f"{API}.STREAM.INFO.{STREAM}", b"", timeout=5)
    print(json.dumps(results))
    await client.close()


asyncio.run(main())
