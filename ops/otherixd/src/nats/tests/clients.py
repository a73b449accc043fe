"""What user `admin` reads, through an independent client. Prints one JSON object."""
import asyncio, json, sys
import creds, nats

url, credentials = sys.argv[1:]


async def main():
    client = await nats.connect(url, **creds.options(credentials))
    results = {"user": creds.user(credentials)}
    results["stored"] = [[int(message.headers["Nats-Sequence"]), message.headers["Nats-Subject"], message.data.decode()]
                         async for message in creds.stored(client)]
    results["from_2"] = [message.data.decode() async for message in creds.stored(client, first=2, batch=1)]
    events = client.jetstream(domain="events")
    results["last"] = (await events.stream_info("OTHERIX_EVENTS")).state.last_seq
    results["direct"] = (await events.get_msg("OTHERIX_EVENTS", 3, direct=True)).data.decode()

    live = await client.subscribe("live.otherix.>")
    await client.flush()
    subject = f"otherix.req.v1.{results['user']}.network.get"
    reply = await client.request(subject, b"publish", timeout=10)
    results["request"] = json.loads(reply.data)
    results["live"] = (await live.next_msg(10)).data.decode()

    forged = {"Nats-Request-Info": json.dumps({"acc": "CLIENTS", "user": "otherixd", "kind": "Client"})}
    reply = await client.request(subject, b"", timeout=10, headers=forged)
    results["forged"] = json.loads(reply.data)
    print(json.dumps(results))
    await client.close()


asyncio.run(main())
