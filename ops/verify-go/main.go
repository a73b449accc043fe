// Verifies a log in a folder with the reference implementation, golang.org/x/mod/sumdb: the checkpoint's signature,
// tiles, entries, and the proofs beside them; then that it refuses what was altered. An export of `otherix audit
// export` has its entries in `events.jsonl`, and no witness's signature. `make verify-go` runs it.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Hashes of a full tile: tiles of C2SP have height 8.
const width = 256

var folder string

// Ends the program with an error.
func check(err error, what string) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "verify-go: error: %s: %v\n", what, err)
		os.Exit(1)
	}
}

func require(condition bool, what string) {
	if !condition {
		check(fmt.Errorf("refused"), what)
	}
}

func read(path string) []byte {
	content, err := os.ReadFile(filepath.Join(folder, path))
	check(err, path)
	return content
}

// The checkpoint in a note, and how many signatures nobody here knows.
func open(message []byte, verifiers note.Verifiers, name string) (tlog.Tree, int, error) {
	opened, err := note.Open(message, verifiers)
	if err != nil {
		return tlog.Tree{}, 0, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != name || lines[3] != "" {
		return tlog.Tree{}, 0, fmt.Errorf("%q is no checkpoint of %s", opened.Text, name)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, 0, err
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, len(opened.UnverifiedSigs), err
}

// Tiles in the folder.
type tiles struct{}

func (tiles) Height() int { return 8 }

// The path of C2SP has no height.
func (tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var contents [][]byte
	for _, tile := range wanted {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		content, err := os.ReadFile(filepath.Join(folder, path))
		if err != nil {
			return nil, err
		}
		contents = append(contents, content)
	}
	return contents, nil
}

func (tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func exists(path string) bool {
	_, err := os.Stat(filepath.Join(folder, path))
	return err == nil
}

func entries(size int64) [][]byte {
	if exists("events.jsonl") {
		return bytes.Split(bytes.TrimSuffix(read("events.jsonl"), []byte("\n")), []byte("\n"))
	}
	var all [][]byte
	for first := int64(0); first < size; first += width {
		tile := tlog.Tile{H: 8, L: 0, N: first / width, W: int(min(width, size-first))}
		rest := read(strings.Replace(tile.Path(), "tile/8/0/", "tile/entries/", 1))
		for len(rest) > 0 {
			length := int(binary.BigEndian.Uint16(rest))
			all, rest = append(all, rest[2:2+length]), rest[2+length:]
		}
	}
	return all
}

func min(a, b int64) int64 {
	if a < b {
		return a
	}
	return b
}

func hashes(lines []string) []tlog.Hash {
	var parsed []tlog.Hash
	for _, line := range lines {
		hash, err := tlog.ParseHash(line)
		check(err, line)
		parsed = append(parsed, hash)
	}
	return parsed
}

func same(one, other []tlog.Hash) bool {
	if len(one) != len(other) {
		return false
	}
	for i := range one {
		if one[i] != other[i] {
			return false
		}
	}
	return true
}

func main() {
	folder = os.Args[1]
	verifier, err := note.NewVerifier(strings.TrimSpace(string(read("vkey"))))
	check(err, "vkey")
	known := note.VerifierList(verifier)

	message := read("checkpoint")
	tree, unknown, err := open(message, known, verifier.Name())
	check(err, "checkpoint")
	witnesses := 0
	if exists("witness-vkey") {
		witnesses = 1
	}
	require(unknown == witnesses, "the witness's signature is unknown to x/mod, and kept")
	for i := range message {
		altered := append([]byte(nil), message...)
		altered[i] ^= 1
		_, _, err := open(altered, known, verifier.Name())
		// A byte of a signature that nobody here knows may be any.
		last := bytes.LastIndex(message, []byte("\u2014"))
		require(err != nil || (witnesses == 1 && i > last), "an altered checkpoint is refused")
	}

	reader := tlog.TileHashReader(tree, tiles{})
	all := entries(tree.N)
	require(int64(len(all)) == tree.N, "number of entries")
	for index, entry := range all {
		stored, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, int64(index))})
		check(err, "tiles")
		require(stored[0] == tlog.RecordHash(entry), "entry")
	}
	wrong := tree
	wrong.Hash[0] ^= 1
	_, err = tlog.TileHashReader(wrong, tiles{}).ReadHashes([]int64{0})
	require(err != nil, "tiles of another root are refused")

	proofs, err := filepath.Glob(filepath.Join(folder, "proof/*.tlog-proof"))
	check(err, "proofs")
	require(len(proofs) > 0, "proofs")
	for _, path := range proofs {
		content, err := os.ReadFile(path)
		check(err, path)
		parts := bytes.SplitN(content, []byte("\n\n"), 2)
		signed, _, err := open(parts[1], known, verifier.Name())
		check(err, path)
		lines := strings.Split(string(parts[0]), "\n")
		entry, err := base64.StdEncoding.Strict().DecodeString(strings.TrimPrefix(lines[1], "extra "))
		check(err, path)
		index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
		check(err, path)
		proof := tlog.RecordProof(hashes(lines[3:]))
		check(tlog.CheckRecord(proof, signed.N, signed.Hash, index, tlog.RecordHash(entry)), path)
		made, err := tlog.ProveRecord(signed.N, index, reader)
		check(err, path)
		require(same(made, proof), path)
		err = tlog.CheckRecord(proof, signed.N, signed.Hash, index, tlog.RecordHash(append(entry, 'x')))
		require(err != nil, "the proof of another entry is refused")
	}

	consistency, err := filepath.Glob(filepath.Join(folder, "consistency/*"))
	check(err, "consistency")
	require(len(consistency) > 1, "consistency")
	for _, path := range consistency {
		content, err := os.ReadFile(path)
		check(err, path)
		end := bytes.LastIndex(content, []byte("\n\n"))
		older, _, err := open(content[:end+1], known, verifier.Name())
		check(err, path)
		proof := tlog.TreeProof(hashes(strings.Fields(string(content[end+2:]))))
		check(tlog.CheckTree(proof, tree.N, tree.Hash, older.N, older.Hash), path)
		made, err := tlog.ProveTree(tree.N, older.N, reader)
		check(err, path)
		require(same(made, proof), path)
		older.Hash[31] ^= 1
		require(tlog.CheckTree(proof, tree.N, tree.Hash, older.N, older.Hash) != nil, "another history is refused")
	}
	fmt.Printf("verify-go: %d entries, %d proofs, %d consistency proofs\n", tree.N, len(proofs), len(consistency))
}
