// Prints the networks (or VMs, or nodes) of a cluster, and each of their changes. Needs the packages of package.json
// (`npm ci`), no otherix code. OTHERIX_STATE_CREDENTIALS is the file NAME.state.creds that `otherix user create NAME`
// has written beside NAME.creds. Arguments: the bucket (default: OTHERIX_NETWORKS), and how many entries to print
// (default: all, for ever).
import { readFileSync } from "node:fs";
import { Kvm } from "@nats-io/kv";
import { connect, credsAuthenticator } from "@nats-io/transport-node";

const [bucket = "OTHERIX_NETWORKS", count = "Infinity"] = process.argv.slice(2);
const { OTHERIX_NATS_URL, OTHERIX_STATE_CREDENTIALS, OTHERIX_CA } = process.env;

// The user's public key: the subject of the JWT in the credentials file.
const creds = readFileSync(OTHERIX_STATE_CREDENTIALS);
const jwt = creds.toString().split("\n")[1];
const user = JSON.parse(Buffer.from(jwt.split(".")[1], "base64url")).sub;

const client = await connect({
  servers: OTHERIX_NATS_URL,
  authenticator: credsAuthenticator(creds),
  inboxPrefix: `_INBOX_${user}`,
  // The CA of the control plane; none where NATS has no TLS.
  ...(OTHERIX_CA ? { tls: { caFile: OTHERIX_CA } } : {}),
  // However long an outage lasts.
  maxReconnectAttempts: -1,
});
const state = await new Kvm(client).open(bucket);
// Each resource is there under `id.<its id>` and under `name.<its name>`.
const changes = await state.watch({ key: "id.>" });
let left = Number(count);
for await (const entry of changes) {
  if (entry.operation !== "PUT") {
    console.log(entry.key, "is gone");
  } else {
    const { data, meta } = entry.json();
    // The last event that the view takes into account.
    console.log(entry.key, meta.position, JSON.stringify(data));
  }
  left -= 1;
  if (left <= 0) break;
}
await client.close();
