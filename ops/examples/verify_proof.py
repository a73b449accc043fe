"""Verifies that an event is in the log of a cluster: `python3 verify_proof.py FILE VKEY`, with the file that `otherix
audit prove` wrote and the key that `otherix audit key` printed. Prints the event.

Needs `cryptography` for Ed25519, no otherix code and no control plane. The format of the file is C2SP tlog-proof.
"""

import base64
import hashlib
import re
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def refuse(why):
    sys.exit(f"not proven: {why}")


def unusable(why):
    print(why, file=sys.stderr)
    sys.exit(2)


def decoded(text):
    return base64.b64decode(text, validate=True)


def leaf_hash(entry):
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def root_of(leaf, index, size, path):
    """The root that the path of a leaf gives in a tree of this size (RFC 6962)."""
    if index >= size:
        refuse("the index is beyond the end of the log")
    last, root = size - 1, leaf
    for other in path:
        if last == 0:
            refuse("the path is too long")
        if index % 2 == 1 or index == last:
            root = node_hash(other, root)
            while index % 2 == 0 and index > 0:
                index, last = index // 2, last // 2
        else:
            root = node_hash(root, other)
        index, last = index // 2, last // 2
    if last != 0:
        refuse("the path is too short")
    return root


def head_of(checkpoint, vkey):
    """The size and root of the log, as its key has signed them."""
    parts = re.fullmatch(r"([^+\s]+)\+([0-9a-f]{8})\+(\S+)", vkey) or refuse("the key is malformed")
    name, key_id, key = parts[1], parts[2], decoded(parts[3])
    if len(key) != 33 or key[0] != 1 or hashlib.sha256(f"{name}\n".encode() + key).digest()[:4].hex() != key_id:
        refuse("the key is malformed")
    text, separator, signatures = checkpoint.rpartition("\n\n")
    text += "\n"
    origin, size, root = (text + "\n\n").split("\n")[:3]
    if not separator or origin != name:
        refuse(f"the checkpoint is one of `{origin}`, not of `{name}`")
    for line in signatures.splitlines():
        dash, signer, signature = (line.split(" ") + ["", ""])[:3]
        signature = decoded(signature)
        if dash == "\N{EM DASH}" and signer == name and signature[:4].hex() == key_id:
            Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature[4:], text.encode())
            return int(size), decoded(root)
    refuse("the key has not signed the checkpoint")


def verified(proof, vkey):
    """The event of a proof."""
    lines, _, checkpoint = proof.partition("\n\n")
    header, extra, index, *path = lines.split("\n")
    if header != "c2sp.org/tlog-proof@v1" or not extra.startswith("extra ") or not index.startswith("index "):
        refuse("the file is not a proof of an event")
    event, index = decoded(extra.removeprefix("extra ")), int(index.removeprefix("index "))
    if index < 0:
        refuse("the index is malformed")
    size, root = head_of(checkpoint, vkey)
    # No signature covers the event: its hash has to be the leaf that the signed root has.
    if root_of(leaf_hash(event), index, size, [decoded(line) for line in path]) != root:
        refuse("the event is not in the log that was signed")
    return event


if len(sys.argv) != 3:
    unusable("usage: verify_proof.py FILE VKEY")
try:
    with open(sys.argv[1], encoding="utf-8", newline="") as file:
        text = file.read()
except OSError as error:
    unusable(f"cannot read `{sys.argv[1]}`: {error.strerror}")
except UnicodeDecodeError:
    refuse("the file is not a proof of an event")
try:
    print(verified(text, sys.argv[2].strip()).decode())
except InvalidSignature:
    refuse("the signature is wrong")
except ValueError as error:
    refuse(f"the file or the key is malformed: {error}")
