"""Tries everything with the durable consumer of another user. Arguments: the server's URL, the credentials file, the
consumer of the other user, and a consumer of one's own. Prints what happened for each attempt: `refused` by the server,
`answered`, or `nothing`.
"""
import asyncio, json, sys
import creds, nats

STREAM = "OTHERIX_EVENTS"


async def main():
    url, file, foreign, own = sys.argv[1:]
    errors = []

    async def on_error(error):
        errors.append(str(error))

    client = await nats.connect(url, error_cb=on_error, **creds.options(file))
    api = "$JS.events.API.CONSUMER"
    definition = json.dumps({"stream_name": STREAM, "config": {"durable_name": foreign, "ack_policy": "explicit"}})
    attempts = {
        "read": (f"{api}.MSG.NEXT.{STREAM}.{foreign}", '{"batch":1}'),
        "inspect": (f"{api}.INFO.{STREAM}.{foreign}", ""),
        "list": (f"{api}.LIST.{STREAM}", ""),
        "names": (f"{api}.NAMES.{STREAM}", ""),
        "delete": (f"{api}.DELETE.{STREAM}.{foreign}", ""),
        "delete own": (f"{api}.DELETE.{STREAM}.{own}", ""),
        "replace": (f"{api}.CREATE.{STREAM}.{foreign}", definition),
        "reset": (f"{api}.RESET.{STREAM}.{foreign}", '{"seq":1}'),
        "pause": (f"{api}.PAUSE.{STREAM}.{foreign}", '{"pause_until":"2199-01-01T00:00:00Z"}'),
        "acknowledge": (f"$JS.ACK.{STREAM}.{foreign}.1.1.1.1.0", "+ACK"),
        "acknowledge and read": (f"$JS.ACK.{STREAM}.{foreign}.1.1.1.1.0", "+NXT"),
        # What shows that the attempts are made as they work for an own consumer.
        "read own": (f"{api}.MSG.NEXT.{STREAM}.{own}", '{"batch":1}'),
        "inspect own": (f"{api}.INFO.{STREAM}.{own}", ""),
    }
    results = {}
    for name, (subject, body) in attempts.items():
        errors.clear()
        inbox = client.new_inbox()
        answers = await client.subscribe(inbox)
        await client.publish(subject, body.encode(), reply=inbox)
        await client.flush()
        try:
            await answers.next_msg(timeout=2 if name.endswith("own") else 0.2)
            results[name] = "answered"
        except nats.errors.TimeoutError:
            denied = any("permissions violation" in error.lower() and subject.lower() in error.lower()
                         for error in errors)
            results[name] = "refused" if denied else f"nothing: {errors}"
    print(json.dumps(results))
    await client.close()


asyncio.run(main())
