"""Checks that the stream is a copy of the journal: prints the number of events, or fails with the first difference.

Arguments: the server's URL, the journal's path, and, to read as a user, the credentials file, and a CA for TLS.
"""
import asyncio, json, ssl, subprocess, sys
import creds, nats


async def read(client, stream, is_user, count):
    """The messages with their sequences. People may not create consumers."""
    if is_user:
        async for message in creds.stored(client):
            yield int(message.headers["Nats-Sequence"]), message
        return
    consumer = await stream.pull_subscribe("", stream="OTHERIX_EVENTS", config=nats.js.api.ConsumerConfig(
        ack_policy="none", deliver_policy="all", inactive_threshold=30, mem_storage=True))
    while count:
        for message in await consumer.fetch(min(500, count), timeout=5):
            count -= 1
            yield message.metadata.sequence.stream, message


async def main():
    url, journal, *user = sys.argv[1:]
    options = creds.options(user[0]) if user else {}
    if len(user) > 1:
        options["tls"] = ssl.create_default_context(cafile=user[1])
    query = "SELECT position, event_id, hex(body) FROM events ORDER BY position"
    command = ["sqlite3", "-readonly", journal, query]
    rows = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    client = await nats.connect(url, **options)
    stream = client.jetstream(domain="events") if user else client.jetstream()
    seen = 0
    async for sequence, message in read(client, stream, is_user=bool(user), count=len(rows)):
        position, event_id, body = rows[seen].split("|")
        seen += 1
        assert sequence == int(position), f"sequence {sequence} at position {position}"
        assert message.data == bytes.fromhex(body), f"other bytes at position {position}"
        assert message.headers["Nats-Msg-Id"] == event_id, f"id {message.headers} at position {position}"
        assert message.headers["Content-Type"] == "application/cloudevents+json", message.headers
        event = json.loads(message.data)
        assert event["id"] == event_id and int(event["sequence"]) == int(position), event
    assert seen == len(rows), f"{seen} messages, but {len(rows)} events"
    state = (await stream.stream_info("OTHERIX_EVENTS")).state
    last = int(rows[-1].split("|")[0]) if rows else 0
    assert (state.messages, state.last_seq) == (len(rows), last), f"{state}, but {len(rows)} events"
    print(len(rows))
    await client.close()


asyncio.run(main())
