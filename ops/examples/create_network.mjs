// Creates a network, however often the request has to be sent. Needs the packages of package.json (`npm ci`), no
// otherix code. Arguments: the network's name and its bridge, and an idempotency key (default: a new one).
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { connect, credsAuthenticator, errors, headers } from "@nats-io/transport-node";

const [name, bridge_name, key = randomUUID()] = process.argv.slice(2);
const { OTHERIX_NATS_URL, OTHERIX_CREDENTIALS, OTHERIX_CA } = process.env;
// One key for each network that is wanted, noted before the first attempt: a program that was interrupted sends it
// again with its next start. For 24 h, the same key and body return the first success again.
console.log(`idempotency key ${key}`);

// The user's public key: the subject of the JWT in the credentials file.
const creds = readFileSync(OTHERIX_CREDENTIALS);
const jwt = creds.toString().split("\n")[1];
const user = JSON.parse(Buffer.from(jwt.split(".")[1], "base64url")).sub;

const client = await connect({
  servers: OTHERIX_NATS_URL,
  authenticator: credsAuthenticator(creds),
  inboxPrefix: `_INBOX_${user}`,
  // The CA of the control plane; none where NATS has no TLS.
  ...(OTHERIX_CA ? { tls: { caFile: OTHERIX_CA } } : {}),
});
const withKey = headers();
withKey.set("Otherix-Idempotency-Key", key);
const body = JSON.stringify({ name, bridge_name, managed: true });

let reply;
for (let attempt = 0; attempt < 10 && !reply; attempt += 1) {
  try {
    const subject = `otherix.req.v1.${user}.network.create`;
    const answer = (await client.request(subject, body, { timeout: 2_000, headers: withKey })).json();
    if (answer.error?.code !== "unavailable") reply = answer;
  } catch (error) {
    // Whether the network was created is not known: with the same key, it is created once.
    if (!(error instanceof errors.TimeoutError || error instanceof errors.RequestError)) throw error;
  }
  if (!reply) await sleep(Math.min(100 * 2 ** attempt, 5_000));
}
await client.close();
if (!reply) {
  console.error("the control plane does not answer; run this again with the same key");
  process.exitCode = 1;
} else if (reply.error) {
  console.error(`${reply.error.code}: ${reply.error.message}`);
  process.exitCode = 1;
} else {
  console.log(`network ${reply.data.id} at position ${reply.meta.position}`);
}
