#!/usr/bin/env python3
"""Creates a network, however often the request has to be sent. Needs nats-py and nkeys only (`pip install nats-py
nkeys`), no otherix code. Arguments: the network's name and its bridge, and an idempotency key (default: a new one).
"""
import asyncio, json, os, ssl, sys, uuid
import nats
import nats.errors


def user_of(credentials):
    """The user's public key: the subject of the JWT in a credentials file."""
    import base64

    lines = open(credentials).read().splitlines()
    body = lines[lines.index("-----BEGIN NATS USER JWT-----") + 1].split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["sub"]


async def main(name, bridge, key=None):
    # One key for each network that is wanted, noted before the first attempt: a program that was interrupted sends it
    # again with its next start. For 24 h, the same key and body return the first success again.
    key = key or str(uuid.uuid4())
    print(f"idempotency key {key}", flush=True)
    credentials = os.environ["OTHERIX_CREDENTIALS"]
    user = user_of(credentials)
    client = await nats.connect(
        os.environ["OTHERIX_NATS_URL"],
        user_credentials=credentials,
        inbox_prefix=f"_INBOX_{user}".encode(),
        # The CA of the control plane; None where NATS has no TLS.
        tls=ssl.create_default_context(cafile=os.environ["OTHERIX_CA"]) if "OTHERIX_CA" in os.environ else None,
    )
    subject = f"otherix.req.v1.{user}.network.create"
    body = json.dumps({"name": name, "bridge_name": bridge, "managed": True}).encode()
    for attempt in range(10):
        try:
            answer = await client.request(subject, body, timeout=2, headers={"Otherix-Idempotency-Key": key})
        except (nats.errors.TimeoutError, nats.errors.NoRespondersError):
            # Whether the network was created is not known: with the same key, it is created once.
            await asyncio.sleep(min(0.1 * 2**attempt, 5))
            continue
        reply = json.loads(answer.data)
        if reply.get("error", {}).get("code") == "unavailable":
            await asyncio.sleep(min(0.1 * 2**attempt, 5))
            continue
        break
    else:
        sys.exit("the control plane does not answer; run this again with the same key")
    await client.close()
    if "error" in reply:
        sys.exit(f"{reply['error']['code']}: {reply['error']['message']}")
    print(f"network {reply['data']['id']} at position {reply['meta']['position']}", flush=True)


asyncio.run(main(*sys.argv[1:]))
