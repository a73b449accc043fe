"""Verifies a log in a folder with tlog-scales: signatures, tiles, entries, and the proofs beside them.

An export of `otherix audit export` has its entries in `events.jsonl`, and no witness's signature.
"""

import base64
import pathlib
import sys

from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import Vkey
from tlog_scales.tiles import leaf_hash
from tlog_scales.tlog import Checkpoint, ConsistencyProof, InclusionProof

folder = pathlib.Path(sys.argv[1])
log = Vkey.from_string((folder / "vkey").read_text().strip())
witness = folder / "witness-vkey"
events = folder / "events.jsonl"

reader = TilesReader(LocalBackend(folder))
checkpoint = reader.get_checkpoint()
checkpoint.verify(log)
if witness.exists():
    checkpoint.verify(Vkey.from_string(witness.read_text().strip()))
assert checkpoint.origin == log.name, "origin"

# tlog-scales believes tiles: compare the root that follows from all leaves, and every path with ours.
assert reader.calculate_root_hash() == checkpoint.root_hash, "root of the tiles"
lines = events.read_bytes().removesuffix(b"\n").split(b"\n") if events.exists() else None
assert lines is None or len(lines) == checkpoint.size, "number of events"
for index in range(checkpoint.size):
    leaf = leaf_hash(reader.get_entry(index) if lines is None else lines[index])
    assert leaf == reader.mth(index, index + 1), f"entry {index}"
    reader.get_inclusion_proof(index, checkpoint.size).check(leaf, checkpoint.root_hash)
assert reader.mth(0, checkpoint.size) == checkpoint.root_hash

proofs = 0
for path in (folder / "proof").iterdir():
    head, _, note = path.read_text().partition("\n\n")
    header, extra, index, *hashes = head.split("\n")
    assert header == "c2sp.org/tlog-proof@v1", header
    entry = base64.b64decode(extra.removeprefix("extra "), validate=True)
    signed = Checkpoint.from_text(note)
    signed.verify(log)
    proof = InclusionProof(int(index.removeprefix("index ")), signed.size, [base64.b64decode(h) for h in hashes])
    proof.check(leaf_hash(entry), signed.root_hash)
    assert proof == reader.get_inclusion_proof(proof.leaf_index, signed.size), path
    proofs += 1
assert proofs > 0

consistent = 0
for path in (folder / "consistency").iterdir():
    note, _, hashes = path.read_text().rpartition("\n\n")
    older = Checkpoint.from_text(note + "\n")
    older.verify(log)
    proof = ConsistencyProof(older.size, checkpoint.size, [base64.b64decode(h) for h in hashes.split()])
    proof.check(older.root_hash, checkpoint.root_hash)
    assert proof == reader.get_consistency_proof(older.size, checkpoint.size), path
    consistent += 1

signed = "checkpoint, witness" if witness.exists() else "checkpoint"
print(f"{signed}, {consistent} consistency proofs, {checkpoint.size} entries")
