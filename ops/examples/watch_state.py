#!/usr/bin/env python3
"""Prints the networks (or VMs, or nodes) of a cluster, and each of their changes. Needs nats-py and nkeys only (`pip
install nats-py nkeys`), no otherix code. OTHERIX_STATE_CREDENTIALS is the file NAME.state.creds that `otherix user
create NAME` has written beside NAME.creds. Arguments: the bucket (default: OTHERIX_NETWORKS), and how many entries to
print (default: all, for ever).
"""
import asyncio, base64, json, os, ssl, sys
import nats


def user_of(credentials):
    """The user's public key: the subject of the JWT in a credentials file."""
    lines = open(credentials).read().splitlines()
    body = lines[lines.index("-----BEGIN NATS USER JWT-----") + 1].split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["sub"]


async def main(bucket="OTHERIX_NETWORKS", count=None):
    credentials = os.environ["OTHERIX_STATE_CREDENTIALS"]
    client = await nats.connect(
        os.environ["OTHERIX_NATS_URL"],
        user_credentials=credentials,
        inbox_prefix=f"_INBOX_{user_of(credentials)}".encode(),
        # The CA of the control plane; None where NATS has no TLS.
        tls=ssl.create_default_context(cafile=os.environ["OTHERIX_CA"]) if "OTHERIX_CA" in os.environ else None,
        # However long an outage lasts.
        max_reconnect_attempts=-1,
    )
    state = await client.jetstream().key_value(bucket)
    # Each resource is there under `id.<its id>` and under `name.<its name>`.
    changes = await state.watch("id.>")
    left = None if count is None else int(count)
    while left is None or left > 0:
        # However long nothing changes.
        entry = await changes.updates(timeout=None)
        if entry is None:
            # What there was at the start is complete; what follows are changes.
            print("complete", flush=True)
            continue
        if entry.operation in ("DEL", "PURGE"):
            print(entry.key, "is gone", flush=True)
        else:
            value = json.loads(entry.value)
            # The last event that the view takes into account.
            print(entry.key, value["meta"]["position"], json.dumps(value["data"]), flush=True)
        left = left and left - 1
    await client.close()


asyncio.run(main(*sys.argv[1:]))
