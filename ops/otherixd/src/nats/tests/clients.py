"""What user `admin` can and cannot do, through an independent client. Prints one JSON object."""
import asyncio, json, sys, time
import nats
from nats.js.api import ConsumerConfig, AckPolicy

url, credentials = sys.argv[1], json.load(open(sys.argv[2]))
EVENTS = "otherix.evt.v1.>"


async def read(subscription, count):
    messages = [await subscription.next_msg(10) for _ in range(count)]
    return [(m.metadata.sequence.stream, m.data.decode()) for m in messages]


async def denied(errors, subject, attempt):
    """The server's error on an attempt on a subject, or an empty string after 10 s."""
    await attempt(subject)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        for error in errors:
            if subject.lower() in error.lower():
                return error
        await asyncio.sleep(0.01)
    return ""


async def main():
    errors, results = [], {}

    async def remember(error):
        errors.append(str(error))

    client = await nats.connect(url, user=credentials["user"], password=credentials["password"],
                                inbox_prefix=b"_INBOX_admin", error_cb=remember)
    js = client.jetstream()

    results["ordered"] = await read(await js.subscribe(EVENTS, stream="OTHERIX_EVENTS", ordered_consumer=True), 2)
    results["push"] = await read(await js.subscribe(EVENTS, stream="OTHERIX_EVENTS", manual_ack=True), 2)

    pull = await js.pull_subscribe(EVENTS, durable="auditor", stream="OTHERIX_EVENTS")
    messages = await pull.fetch(2, timeout=10)
    for message in messages:
        await message.ack_sync()
    info = await js.consumer_info("OTHERIX_EVENTS", "auditor")
    results["durable"] = [info.ack_floor.stream_seq, info.num_pending]
    await js.delete_consumer("OTHERIX_EVENTS", "auditor")

    pull = await js.pull_subscribe("", stream="OTHERIX_EVENTS", config=ConsumerConfig(ack_policy=AckPolicy.NONE))
    results["pull"] = [m.data.decode() for m in await pull.fetch(3, timeout=10)]
    results["message"] = (await js.get_msg("OTHERIX_EVENTS", 2)).data.decode()
    results["direct"] = (await js.get_msg("OTHERIX_EVENTS", 3, direct=True)).data.decode()

    live = await client.subscribe("live.otherix.>")
    await client.flush()
    reply = await client.request("otherix.req.v1.admin.network.get", b"publish", timeout=10)
    results["request"] = json.loads(reply.data)
    results["live"] = (await live.next_msg(10)).data.decode()

    forged = {"Nats-Request-Info": json.dumps({"acc": "CLIENTS", "user": "otherixd", "kind": "Client"})}
    reply = await client.request("otherix.req.v1.admin.network.get", b"", timeout=10, headers=forged)
    results["forged"] = json.loads(reply.data)

    def publish(subject):
        return client.publish(subject, b"no")

    attempts = {
        "an event": ("otherix.evt.v1.network.created.x", publish),
        "another user's request": ("otherix.req.v1.node.node.join", publish),
        "the mirror's consumer": ("control.js.CONSUMER.CREATE.OTHERIX_EVENTS", publish),
        "a heartbeat": ("otherix.hb.v1.x", publish),
        "deleting the mirror": ("$JS.API.STREAM.DELETE.OTHERIX_EVENTS", publish),
        "purging the mirror": ("$JS.API.STREAM.PURGE.OTHERIX_EVENTS", publish),
        "creating a stream": ("$JS.API.STREAM.CREATE.MINE", publish),
        "others' requests": ("otherix.req.v1.>", client.subscribe),
        "others' replies": ("_INBOX_node.>", client.subscribe),
    }
    results["denied"] = {name: await denied(errors, *attempt) for name, attempt in attempts.items()}
    print(json.dumps(results))
    await client.close()


asyncio.run(main())
