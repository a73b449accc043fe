"""Durable consumers of every kind, before and after the stream was rebuilt.

`begin` creates them and acknowledges the first messages; `acknowledge` acknowledges up to the stream's end; `end`
checks that each receives exactly what it has not acknowledged, and that its definition is unchanged. Arguments: the
server's URL, the step, the number of events before the first network, and, to connect as a user, the credentials file.
"""
import asyncio, json, sys
import creds, nats

NAMES = ["all", "filtered", "none", "new"]


async def main():
    url, phase, skipped, *user = sys.argv[1:]
    end = 21 + int(skipped)
    options = creds.options(user[0]) if user else {}
    client = await nats.connect(url, **options)
    js = client.jetstream()
    Config = nats.js.api.ConsumerConfig

    async def take(name, count):
        # One at a time: a fetch of several may return before all have arrived.
        subscription = await js.pull_subscribe_bind(name, stream="OTHERIX_EVENTS")
        return [(await subscription.fetch(1, timeout=5))[0] for _ in range(count)]

    async def definitions():
        configs = [(await js.consumer_info("OTHERIX_EVENTS", name)).config for name in NAMES[:3]]
        return [[config.durable_name, str(config.deliver_policy), config.filter_subject, config.max_ack_pending]
                for config in configs]

    if phase == "begin":
        filtered = {"filter_subject": "otherix.evt.v1.network.>", "max_ack_pending": 77}
        for name, settings in [("all", {}), ("filtered", filtered), ("none", {"ack_policy": "none"}),
                               ("new", {"deliver_policy": "new"})]:
            settings = {"ack_policy": "explicit", **settings}
            await js.add_consumer("OTHERIX_EVENTS", Config(durable_name=name, **settings))
        for name, count in [("all", 5), ("filtered", 3), ("none", 4)]:
            for message in await take(name, count):
                if name != "none":
                    await message.ack_sync(timeout=5)
        # One acknowledged above the floor, and one in flight that is not acknowledged.
        first, second = await take("all", 2)
        await second.ack_sync(timeout=5)
        print(json.dumps(await definitions()))
    elif phase == "acknowledge":
        last = (await js.stream_info("OTHERIX_EVENTS")).state.last_seq
        pending = (await js.consumer_info("OTHERIX_EVENTS", "filtered")).num_pending
        for message in await take("filtered", pending):
            await message.ack_sync(timeout=5)
        for message in await take("new", 1):
            assert message.metadata.sequence.stream == last, message.metadata
            await message.ack_sync(timeout=5)
        state = (await js.consumer_info("OTHERIX_EVENTS", "new")).ack_floor
        assert state.stream_seq == last, state
    else:
        got = {}
        for name, count in [("all", 1), ("filtered", 1), ("none", 1)]:
            got[name] = (await take(name, count))[0].metadata.sequence.stream
        last = (await js.stream_info("OTHERIX_EVENTS")).state.last_seq
        expected = {"all": 6, "filtered": end if last == end else 4 + int(skipped), "none": 5}
        assert got == expected, (got, expected)
        if last == end:
            assert [message.metadata.sequence.stream for message in await take("new", 1)] == [end]
        print(json.dumps(await definitions()))
    await client.close()


asyncio.run(main())
