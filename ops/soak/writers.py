"""Writers: each creates and deletes networks, reusing a few names and bridges.

Every command has an idempotency key and is retried until it is answered, so that each is executed exactly once."""
import asyncio
import json
import time
import uuid

import nats.errors

SLOTS = 5  # networks of one writer at a time
PAUSE_S = 0.08  # mean pause between its requests: the kernel takes 30 ms to delete a bridge
ANSWER_TIMEOUT_S = 2
RETRY_S = 0.05
SETTLE_TIMEOUT_S = 60  # time-out for a request after the faults have ended
REPEAT, MISMATCH, QUERY = 0.1, 0.05, 0.1  # probabilities of a repetition, one with another body, a query


class Refused(Exception):
    """A refusal that a retry does not change."""

    def __init__(self, error):
        super().__init__(f"{error['code']}: {error['message']}")
        self.code = error["code"]


class Writer:
    def __init__(self, number, cluster, random, tally):
        self.number, self.cluster, self.random, self.tally = number, cluster, random, tally
        self.slots = [None] * SLOTS  # id of the current network, if any
        self.settle_by = None

    async def run(self, stop):
        client = await self.cluster.connect()
        try:
            while not stop.is_set():
                slot = self.random.randrange(SLOTS)
                await (self.delete(client, slot) if self.slots[slot] else self.create(client, slot))
                await asyncio.sleep(self.random.expovariate(1 / PAUSE_S))
        finally:
            await client.close()

    async def create(self, client, slot):
        body = {"name": f"net-{self.number}-{slot}", "bridge_name": f"s{self.number}b{slot}", "managed": True,
                "mtu": self.random.choice([1280, 1500, 9000])}
        network = (await self.command(client, "create", body))["data"]
        self.tally.created[network["id"]] = {**body, "position": network["generation"]}
        self.slots[slot] = network["id"]
        if self.random.random() < QUERY:
            view = await self.request(client, "get", {"id": network["id"]}, {})
            if view["data"]["name"] != body["name"]:
                self.tally.add_violation(f"`get` of {network['id']} returns {view['data']['name']}, not {body['name']}")

    async def delete(self, client, slot):
        await self.command(client, "delete", {"id": self.slots[slot]})
        self.tally.deleted.add(self.slots[slot])
        self.slots[slot] = None

    async def command(self, client, verb, body):
        """Executes a command exactly once."""
        key = {"Otherix-Idempotency-Key": str(uuid.UUID(int=self.random.getrandbits(128), version=4))}
        answer = await self.request(client, verb, body, key)
        self.tally.acknowledged()
        draw = self.random.random()
        if draw < REPEAT:
            repeated = await self.request(client, verb, body, key)
            if repeated["data"]["id"] != answer["data"]["id"]:
                self.tally.add_violation(f"{verb} {body} repeated under one key: {answer} and {repeated}")
        elif draw < REPEAT + MISMATCH:
            other = {"name": "other", "bridge_name": "other"} if verb == "create" else {"id": str(uuid.UUID(int=1))}
            try:
                await self.request(client, verb, other, key)
                self.tally.add_violation(f"{verb} {other} was accepted under the key of {body}")
            except Refused as refused:
                if refused.code != "idempotency_key_mismatch":
                    self.tally.add_violation(f"{verb} {other} under the key of {body}: {refused}")
        return answer

    async def request(self, client, verb, body, headers):
        """Retries a request until it is answered."""
        subject = f"otherix.req.v1.{self.cluster.user}.network.{verb}"
        payload = json.dumps(body).encode()
        while True:
            self.tally.sent += 1
            try:
                message = await client.request(subject, payload, timeout=ANSWER_TIMEOUT_S, headers=headers or None)
                answer = json.loads(message.data)
                if "Nats-Service-Error-Code" not in (message.headers or {}):
                    return answer
                if answer["error"]["code"] != "unavailable":
                    raise Refused(answer["error"])
            except (nats.errors.Error, asyncio.TimeoutError, OSError):
                pass  # not reachable, or no answer: its outcome is unknown
            self.tally.retries += 1
            if self.settle_by and time.monotonic() > self.settle_by:
                raise TimeoutError(f"{verb} {body} was not answered within {SETTLE_TIMEOUT_S} s of the last fault")
            await asyncio.sleep(RETRY_S * (0.5 + self.random.random()))

    def settle(self):
        """Sets the time by which pending requests must be answered."""
        self.settle_by = time.monotonic() + SETTLE_TIMEOUT_S


class Tally:
    """Acknowledged commands, and violations."""

    def __init__(self):
        self.created, self.deleted, self.violations = {}, set(), []
        self.sent = self.retries = 0
        self.last_acknowledged, self.longest_gap_s = time.monotonic(), 0.0

    def acknowledged(self):
        now = time.monotonic()
        self.longest_gap_s = max(self.longest_gap_s, now - self.last_acknowledged)
        self.last_acknowledged = now

    def add_violation(self, text):
        self.violations.append(text)
        print(f"soak: VIOLATION: {text}", flush=True)
