#!/usr/bin/env python3
"""Prints and acknowledges the events of a durable consumer, which `otherix events consumer create NAME` has made. Needs
nats-py and nkeys only (`pip install nats-py nkeys`), no otherix code. Arguments: the consumer (`consumer` in the output
of `create`), and how many events to read (default: until there are none for 5 s).
"""
import asyncio, json, os, ssl, sys
import nats


async def main(consumer, count=None):
    user = consumer[:56]  # The consumer's name begins with the user's key.
    client = await nats.connect(
        os.environ["OTHERIX_NATS_URL"],
        user_credentials=os.environ["OTHERIX_CREDENTIALS"],
        inbox_prefix=f"_INBOX_{user}".encode(),
        # The CA of the control plane; None where NATS has no TLS.
        tls=ssl.create_default_context(cafile=os.environ["OTHERIX_CA"]) if "OTHERIX_CA" in os.environ else None,
        # However long an outage lasts.
        max_reconnect_attempts=-1,
    )
    events = await client.jetstream(domain="events").pull_subscribe_bind(consumer, stream="OTHERIX_EVENTS")
    while count is None or count > 0:
        try:
            [message] = await events.fetch(1, timeout=5)
        except nats.errors.TimeoutError:
            break
        event = json.loads(message.data)  # a CloudEvent
        print(int(event["sequence"]), event["type"], json.dumps(event["data"]), flush=True)
        # What is not acknowledged is delivered again.
        await message.ack_sync()
        count = count and count - 1
    await client.close()


asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None))
