"""What user `admin` can and cannot do, through a client that is not ours. Prints one JSON object."""
import asyncio, json, sys
import nats
from nats.js.api import ConsumerConfig, AckPolicy

url, credentials = sys.argv[1], json.load(open(sys.argv[2]))
EVENTS = "otherix.evt.v1.>"


async def read(subscription, count):
    return [(m.metadata.sequence.stream, m.data.decode()) for m in [await subscription.next_msg(10) for _ in range(count)]]


async def denied(client, errors, attempt):
    """The server's words about an attempt, once it has answered a ping behind it."""
    errors.clear()
    try:
        await attempt()
    except Exception as error:
        errors.append(f"{type(error).__name__}: {error}")
    await client.flush()
    return " / ".join(map(str, errors))


async def main():
    errors, seen = [], {}

    async def remember(error):
        errors.append(error)

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

    def publishing(subject):
        return lambda: client.publish(subject, b"no")

    seen["denied"] = {
        "an event": await denied(client, errors, publishing("otherix.evt.v1.network.created.x")),
        "another user's request": await denied(client, errors, publishing("otherix.req.v1.node.node.join")),
        "the mirror's way": await denied(client, errors, publishing("control.js.CONSUMER.CREATE.OTHERIX_EVENTS")),
        "a heartbeat": await denied(client, errors, publishing("otherix.hb.v1.x")),
        "deleting the mirror": await denied(client, errors, publishing("$JS.API.STREAM.DELETE.OTHERIX_EVENTS")),
        "purging the mirror": await denied(client, errors, publishing("$JS.API.STREAM.PURGE.OTHERIX_EVENTS")),
        "a stream of one's own": await denied(client, errors, publishing("$JS.API.STREAM.CREATE.MINE")),
        "others' requests": await denied(client, errors, lambda: client.subscribe("otherix.req.v1.>")),
        "others' answers": await denied(client, errors, lambda: client.subscribe("_INBOX_node.>")),
    }
    print(json.dumps(seen))
    await client.close()


asyncio.run(main())
