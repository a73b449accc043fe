#!/usr/bin/env python3
"""Prints every event of an otherix cluster as it happens. Needs nats-py and nkeys only (`pip install nats-py
nkeys`), no otherix code.

eval "$(otherix-lab env)" && PYTHONPATH=ops/testkit/python .tools/venv/bin/python ops/examples/subscribe.py
"""
import asyncio, json, os, ssl, time
import nats


async def main():
    # The CA of the control plane; without one, those of this machine.
    tls = ssl.create_default_context(cafile=os.environ.get("OTHERIX_CA"))
    credentials = os.environ["OTHERIX_CREDENTIALS"]
    server = os.environ["OTHERIX_NATS_URL"]
    # However long an outage lasts: what happens meanwhile is missed (follow.py misses nothing).
    client = await nats.connect(server, user_credentials=credentials, tls=tls, max_reconnect_attempts=-1)
    events = await client.subscribe("live.otherix.>")
    await client.flush()
    print("subscribed to live.otherix.>", flush=True)
    async for message in events.messages:
        event = json.loads(message.data)  # a CloudEvent
        print(f"{time.time():.3f} {int(event['sequence'])} {event['type']} {json.dumps(event['data'])}", flush=True)


try:
    asyncio.run(main())
except KeyboardInterrupt:
    pass
