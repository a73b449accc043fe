"""What user `admin` can and cannot do, through a client that is not ours. Prints one JSON object."""
import asyncio, json, sys, time
import nats
from nats.js.api import ConsumerConfig, AckPolicy

url, credentials = sys.argv[1], json.load(open(sys.argv[2]))
EVENTS = "otherix.evt.v1.>"


async def read(subscription, count):
    messages = [await subscription.next_msg(10) for _ in range(count)]
    return [(m.metadata.sequence.stream, m.data.decode()) for m in messages]


async def denied(errors, subject, attempt):
    """The server's words about an attempt on a subject, or nothing after 10 s."""
    await attempt(subject)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        for error in errors:
            if subject.lower() in error.lower():
                return error
        await asyncio.sleep(0.01)
    return ""


async def main():
    errors, seen = [], {}

    async def remember(error):
        errors.append(str(error))

    client = await nats.connect(url, user=credentials["user"], password=credentials["password"],
                                inbox_prefix=b"_INBOX_admin", error_cb=remember)
    js = client.jetstream()

    seen["ordered"] = await read(await js.subscribe(EVENTS, stream="OTHERIX_EVENTS", ordered_consumer=True), 2)
    seen["push"] = await read(await js.subscribe(EVENTS, stream="OTHERIX_EVENTS", manual_ack=True), 2)

    pull = await js.pull_subscribe(EVENTS, durable="auditor", stream="OTHERIX_EVENTS")
    messages = await pull.fetch(2, timeout=10)
    for message in messages:
        await message.ack_sync()
    info = await js.consumer_info("OTHERIX_EVENTS", "auditor")
    seen["durable"] = [info.ack_floor.stream_seq, info.num_pending]
    await js.delete_consumer("OTHERIX_EVENTS", "auditor")

    pull = await js.pull_subscribe("", stream="OTHERIX_EVENTS", config=ConsumerConfig(ack_policy=AckPolicy.NONE))
    seen["pull"] = [m.data.decode() for m in await pull.fetch(3, timeout=10)]
    seen["message"] = (await js.get_msg("OTHERIX_EVENTS", 2)).data.decode()
    seen["direct"] = (await js.get_msg("OTHERIX_EVENTS", 3, direct=True)).data.decode()

    live = await client.subscribe("live.otherix.>")
    await client.flush()
    answer = await client.request("otherix.req.v1.admin.network.get", b"publish", timeout=10)
    seen["request"] = json.loads(answer.data)
    seen["live"] = (await live.next_msg(10)).data.decode()

    forged = {"Nats-Request-Info": json.dumps({"acc": "CLIENTS", "user": "otherixd", "kind": "Client"})}
    answer = await client.request("otherix.req.v1.admin.network.get", b"", timeout=10, headers=forged)
    seen["forged"] = json.loads(answer.data)

    def publish(subject):
        return client.publish(subject, b"no")

    attempts = {
        "an event": ("otherix.evt.v1.network.created.x", publish),
        "another user's request": ("otherix.req.v1.node.node.join", publish),
        "the mirror's way": ("control.js.CONSUMER.CREATE.OTHERIX_EVENTS", publish),
        "a heartbeat": ("otherix.hb.v1.x", publish),
        "deleting the mirror": ("$JS.API.STREAM.DELETE.OTHERIX_EVENTS", publish),
        "purging the mirror": ("$JS.API.STREAM.PURGE.OTHERIX_EVENTS", publish),
        "a stream of one's own": ("$JS.API.STREAM.CREATE.MINE", publish),
        "others' requests": ("otherix.req.v1.>", client.subscribe),
        "others' answers": ("_INBOX_node.>", client.subscribe),
    }
    seen["denied"] = {what: await denied(errors, *attempt) for what, attempt in attempts.items()}
    print(json.dumps(seen))
    await client.close()


asyncio.run(main())
