"""Connecting with a credentials file of a user (`.creds`), with nats-py."""
import asyncio, base64, json, pathlib, time


def claims(path):
    """What the JWT in a credentials file says."""
    lines = [line.strip() for line in pathlib.Path(path).read_text().splitlines()]
    token = lines[lines.index("-----BEGIN NATS USER JWT-----") + 1]
    body = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


def user(path):
    """The user's public key: its token in the subjects of requests, and its id for the server."""
    return claims(path)["sub"]


def options(path):
    """The options of `nats.connect` for this user. Replies arrive below an inbox of its own."""
    return {"user_credentials": str(path), "inbox_prefix": f"_INBOX_{user(path)}".encode()}


async def stored(client, first=1, batch=500, stream="OTHERIX_EVENTS"):
    """The messages of the stream of events from a sequence on, up to the last that is stored now, as people read them:
    without a consumer. Their headers have the sequence (`Nats-Sequence`) and the subject (`Nats-Subject`).
    """
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    try:
        pending, end = True, time.monotonic() + 10
        while pending:
            query = json.dumps({"seq": first, "batch": batch}).encode()
            await client.publish(f"$JS.events.API.DIRECT.GET.{stream}", query, reply=inbox)
            while True:
                message = await answers.next_msg(timeout=10)
                headers = message.headers or {}
                if headers.get("Status") == "404":
                    return
                if headers.get("Status") == "503":
                    # The mirror answers as soon as it follows the stream.
                    assert time.monotonic() < end, "the stream cannot be read"
                    await asyncio.sleep(0.05)
                    break
                if headers.get("Status"):
                    pending = int(headers.get("Nats-Num-Pending", 0)) > 0
                    break
                first = int(headers["Nats-Sequence"]) + 1
                yield message
    finally:
        await answers.unsubscribe()
