// Prints every event, in order, none twice: live, and after days in which it did not run. Keeps the position that it
// has reached in a file. Needs the packages of package.json (`npm ci`), no otherix code, and no durable consumer.
// Arguments: the file, and how many events to print (default: all, for ever).
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { connect, credsAuthenticator } from "@nats-io/transport-node";
import { HTTP } from "cloudevents";

const [file, number] = process.argv.slice(2);
const { OTHERIX_NATS_URL, OTHERIX_CREDENTIALS, OTHERIX_CA } = process.env;

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
  // However long an outage lasts.
  maxReconnectAttempts: -1,
});

// The control plane cannot answer now.
class Unavailable extends Error {}

// The events after a position up to the last one, from the journal, however old they are.
async function* replay(after) {
  for (;;) {
    let answer;
    try {
      answer = await client.request(`otherix.req.v1.${user}.event.list`, JSON.stringify({ after }), { timeout: 5_000 });
    } catch (error) {
      throw new Unavailable(`no answer: ${error.message}`);
    }
    const { data, meta, error } = answer.json();
    if (error?.code === "unavailable") throw new Unavailable(error.message);
    if (error) throw new Error(`${error.code}: ${error.message}`);
    yield* data.events;
    after = data.complete_to;
    if (after >= meta.position) return;
  }
}

// Replaces the file: it has the position before or the one after, whenever the program is interrupted.
function note(position) {
  const next = openSync(`${file}.new`, "w");
  writeSync(next, `${position}\n`);
  fsyncSync(next);
  closeSync(next);
  renameSync(`${file}.new`, file);
}

let after = existsSync(file) ? Number(readFileSync(file)) : 0;
let left = number === undefined ? Infinity : Number(number);

// Before the replay, so that no event is between the two. A role without `audit:read` subscribes to
// `live.otherix.evt.v1.>` and `live.otherix.out.v1.>`, and the replay leaves out the others, too.
let wake = () => {};
let isNews = false;
client.subscribe("live.otherix.>", {
  callback: () => {
    isNews = true;
    wake();
  },
});
await client.flush();

while (left > 0) {
  isNews = false;
  try {
    for await (const document of replay(after)) {
      const event = HTTP.toEvent({
        headers: { "content-type": "application/cloudevents+json" },
        body: JSON.stringify(document),
      });
      after = Number(event.sequence);
      console.log(after, event.type, JSON.stringify(event.data));
      note(after);
      left -= 1;
      if (left === 0) break;
    }
  } catch (error) {
    if (!(error instanceof Unavailable)) throw error;
    // It goes on where it was.
    console.error(error.message);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    continue;
  }
  if (left > 0 && !isNews) {
    // A live message says that there is something to read; whatever was lost is read with it. Without one, look again
    // from time to time: a connection that is lost delivers nothing.
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, 10_000);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
await client.close();
