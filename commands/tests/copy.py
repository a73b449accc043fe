"""Checks that the stream is a copy of the journal: prints the number of events, or fails with the first difference.

Arguments: the server's URL, the journal's path, and, to read as a user, the user's name and credentials file.
"""
import asyncio, json, subprocess, sys
import nats


async def main():
    url, journal, *user = sys.argv[1:]
    options = {}
    if user:
        with open(user[1]) as file:
            password = json.load(file)["password"]
        options = {"user": user[0], "password": password, "inbox_prefix": f"_INBOX_{user[0]}".encode()}
    query = "SELECT position, event_id, hex(body) FROM events ORDER BY position"
    command = ["sqlite3", "-readonly", journal, query]
    rows = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    client = await nats.connect(url, **options)
    stream = client.jetstream()
    consumer = await stream.pull_subscribe("", stream="OTHERIX_EVENTS", config=nats.js.api.ConsumerConfig(
        ack_policy="none", deliver_policy="all", inactive_threshold=30, mem_storage=True))
    seen = 0
    while seen < len(rows):
        for message in await consumer.fetch(min(500, len(rows) - seen), timeout=5):
            position, event_id, body = rows[seen].split("|")
            seen += 1
            sequence = message.metadata.sequence.stream
            assert sequence == int(position), f"sequence {sequence} at position {position}"
            assert message.data == bytes.fromhex(body), f"other bytes at position {position}"
            assert message.headers["Nats-Msg-Id"] == event_id, f"id {message.headers} at position {position}"
            assert message.headers["Content-Type"] == "application/cloudevents+json", message.headers
            event = json.loads(message.data)
            assert event["id"] == event_id and int(event["sequence"]) == int(position), event
    state = (await stream.stream_info("OTHERIX_EVENTS")).state
    last = int(rows[-1].split("|")[0]) if rows else 0
    assert (state.messages, state.last_seq) == (len(rows), last), f"{state}, but {len(rows)} events"
    print(len(rows))
    await client.close()


asyncio.run(main())
