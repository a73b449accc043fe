#!/usr/bin/env python3
"""Prints every event, in order, none twice: live, and after days in which it did not run. Keeps the position that it
has reached in a file. Needs nats-py, nkeys and cloudevents (`pip install nats-py nkeys cloudevents`), no otherix code,
and no durable consumer. Arguments: the file, and how many events to print (default: all, for ever).
"""
import asyncio, base64, json, os, ssl, sys
import nats
from cloudevents.core.bindings.http import HTTPMessage, from_http_event


def user_of(credentials):
    """The user's public key: the subject of the JWT in a credentials file."""
    lines = open(credentials).read().splitlines()
    body = lines[lines.index("-----BEGIN NATS USER JWT-----") + 1].split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["sub"]


class Unavailable(Exception):
    """The control plane cannot answer now."""


async def replay(client, user, after):
    """The events after a position up to the last one, from the journal, however old they are."""
    while True:
        query = json.dumps({"after": after}).encode()
        try:
            answer = await client.request(f"otherix.req.v1.{user}.event.list", query, timeout=5)
        except (nats.errors.Error, asyncio.TimeoutError) as error:
            raise Unavailable(f"no answer: {error}") from error
        reply = json.loads(answer.data)
        if reply.get("error", {}).get("code") == "unavailable":
            raise Unavailable(reply["error"]["message"])
        if "error" in reply:
            sys.exit(f"{reply['error']['code']}: {reply['error']['message']}")
        for event in reply["data"]["events"]:
            yield event
        after = reply["data"]["complete_to"]
        if after >= reply["meta"]["position"]:
            return


def note(path, position):
    """Replaces the file: it has the position before or the one after, whenever the program is interrupted."""
    with open(path + ".new", "w") as file:
        file.write(f"{position}\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


async def main(path, count=None):
    credentials = os.environ["OTHERIX_CREDENTIALS"]
    user = user_of(credentials)
    client = await nats.connect(
        os.environ["OTHERIX_NATS_URL"],
        user_credentials=credentials,
        inbox_prefix=f"_INBOX_{user}".encode(),
        # The CA of the control plane; None where NATS has no TLS.
        tls=ssl.create_default_context(cafile=os.environ["OTHERIX_CA"]) if "OTHERIX_CA" in os.environ else None,
        # However long an outage lasts.
        max_reconnect_attempts=-1,
    )
    after = int(open(path).read()) if os.path.exists(path) else 0
    # Before the replay, so that no event is between the two. A role without `audit:read` subscribes to
    # `live.otherix.evt.v1.>` and `live.otherix.out.v1.>`, and the replay leaves out the others, too.
    live = await client.subscribe("live.otherix.>", pending_msgs_limit=0, pending_bytes_limit=0)
    await client.flush()
    while count is None or count > 0:
        try:
            async for document in replay(client, user, after):
                event = from_http_event(
                    HTTPMessage({"content-type": "application/cloudevents+json"}, json.dumps(document).encode())
                )
                after = int(event.get_extension("sequence"))
                print(after, event.get_type(), json.dumps(event.get_data()), flush=True)
                note(path, after)
                count = count and count - 1
                if count == 0:
                    break
        except Unavailable as error:
            # It goes on where it was.
            print(error, file=sys.stderr, flush=True)
            await asyncio.sleep(1)
            continue
        if count == 0:
            break
        # A live message says that there is something to read; whatever was lost is read with it. Without one, look
        # again from time to time: a connection that is lost delivers nothing.
        try:
            await live.next_msg(timeout=10)
            while live.pending_msgs:
                await live.next_msg()
        except nats.errors.TimeoutError:
            pass
    await client.close()


asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None))
