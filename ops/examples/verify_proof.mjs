// Verifies that an event is in the log of a cluster: `node verify_proof.mjs FILE VKEY`, with the file that `otherix
// audit prove` wrote and the key that `otherix audit key` printed. Prints the event.
//
// Needs no packages, no otherix code and no control plane. The format of the file is C2SP tlog-proof.
import { createHash, createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";

const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash("sha256")).digest();
const leafHash = (entry) => sha256(Buffer.from([0]), entry);
const nodeHash = (left, right) => sha256(Buffer.from([1]), left, right);

function refuse(why) {
  console.error(`not proven: ${why}`);
  process.exit(1);
}

function decoded(text) {
  const bytes = Buffer.from(text, "base64");
  if (bytes.toString("base64") !== text) refuse("the file or the key is malformed");
  return bytes;
}

function number(text) {
  if (!/^(0|[1-9][0-9]*)$/.test(text)) refuse("the file is malformed");
  return BigInt(text);
}

// The root that the path of a leaf gives in a tree of this size (RFC 6962).
function rootOf(leaf, index, size, path) {
  if (index >= size) refuse("the index is beyond the end of the log");
  let last = size - 1n;
  let root = leaf;
  for (const other of path) {
    if (last === 0n) refuse("the path is too long");
    if (index % 2n === 1n || index === last) {
      root = nodeHash(other, root);
      while (index % 2n === 0n && index > 0n) [index, last] = [index / 2n, last / 2n];
    } else {
      root = nodeHash(root, other);
    }
    [index, last] = [index / 2n, last / 2n];
  }
  if (last !== 0n) refuse("the path is too short");
  return root;
}

// The size and root of the log, as its key has signed them.
function headOf(checkpoint, vkey) {
  const [, name, id, encoded] = /^([^+\s]+)\+([0-9a-f]{8})\+(\S+)$/.exec(vkey) ?? refuse("the key is malformed");
  const key = decoded(encoded);
  const keyId = sha256(`${name}\n`, key).subarray(0, 4).toString("hex");
  if (key.length !== 33 || key[0] !== 1 || keyId !== id) refuse("the key is malformed");
  const end = checkpoint.lastIndexOf("\n\n") + 1;
  const text = checkpoint.slice(0, end);
  const [origin, size, root] = text.split("\n");
  if (origin !== name) refuse(`the checkpoint is one of \`${origin}\`, not of \`${name}\``);
  const ed25519 = createPublicKey({
    key: { kty: "OKP", crv: "Ed25519", x: key.subarray(1).toString("base64url") },
    format: "jwk",
  });
  for (const line of checkpoint.slice(end + 1).trimEnd().split("\n")) {
    const [dash, signer, encodedSignature] = line.split(" ");
    const signature = decoded(encodedSignature ?? "");
    if (dash !== "\u2014" || signer !== name || signature.subarray(0, 4).toString("hex") !== id) continue;
    if (!verify(null, Buffer.from(text), ed25519, signature.subarray(4))) refuse("the signature is wrong");
    return { size: number(size), root: decoded(root) };
  }
  return refuse("the key has not signed the checkpoint");
}

function unusable(why) {
  console.error(why);
  process.exit(2);
}

const [file, vkey] = process.argv.slice(2);
if (process.argv.length !== 4) unusable("usage: verify_proof.mjs FILE VKEY");
let proof;
try {
  proof = readFileSync(file, "utf8");
} catch (error) {
  unusable(`cannot read \`${file}\`: ${error.code}`);
}
const end = proof.indexOf("\n\n");
const [header, extra, index, ...path] = proof.slice(0, end).split("\n");
if (header !== "c2sp.org/tlog-proof@v1" || !extra?.startsWith("extra ") || !index?.startsWith("index ")) {
  refuse("the file is not a proof of an event");
}
const event = decoded(extra.slice("extra ".length));
const { size, root } = headOf(proof.slice(end + 2), vkey.trim());
// No signature covers the event: its hash has to be the leaf that the signed root has.
const found = rootOf(leafHash(event), number(index.slice("index ".length)), size, path.map(decoded));
if (!found.equals(root)) refuse("the event is not in the log that was signed");
console.log(event.toString());
