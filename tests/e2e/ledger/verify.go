// verify checks an exported polder ledger with golang.org/x/mod/sumdb/{note,tlog}, code that polder's authors did not
// write: the checkpoint's signature, the inclusion of every entry (read from the entry bundles, proven from the tiles),
// and that every collected checkpoint is a prefix of the exported one.
//
//	verify EXPORTED-DIR [CHECKPOINTS.json]
//
// CHECKPOINTS.json is a JSON array of signed notes. Exit status: 0 it holds, 1 it does not, 2 used wrongly.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8 // tiles of tlog-tiles are 2^8 hashes wide

func fail(format string, args ...interface{}) {
	fmt.Fprintf(os.Stderr, "verify.go: "+format+"\n", args...)
	os.Exit(1)
}

func read(dir, name string) []byte {
	b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		fail("%v", err)
	}
	return b
}

// tilePath is the path of tlog-tiles: sumdb's without the height.
func tilePath(t tlog.Tile) string {
	return strings.Replace(t.Path(), "tile/"+strconv.Itoa(height)+"/", "tile/", 1)
}

func entriesPath(n int64, w int) string {
	p := tilePath(tlog.Tile{H: height, L: 0, N: n, W: w})
	return strings.Replace(p, "tile/0/", "tile/entries/", 1)
}

// openCheckpoint checks form, origin and signature.
func openCheckpoint(msg []byte, v note.Verifier) tlog.Tree {
	n, err := note.Open(msg, note.VerifierList(v))
	if err != nil {
		fail("checkpoint: %v", err)
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) < 4 || lines[0] != v.Name() {
		fail("checkpoint: not of the log %s", v.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		fail("checkpoint: size %q", lines[1])
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		fail("checkpoint: root: %v", err)
	}
	return tlog.Tree{N: size, Hash: root}
}

// tiles reads tiles of the folder; tlog checks them against the signed tree.
type tiles struct{ dir string }

func (t tiles) Height() int { return height }
func (t tiles) ReadTiles(want []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, w := range want {
		b, err := os.ReadFile(filepath.Join(t.dir, filepath.FromSlash(tilePath(w))))
		if err != nil {
			return nil, err
		}
		if len(b) != w.W*tlog.HashSize {
			return nil, fmt.Errorf("%s: %d bytes", tilePath(w), len(b))
		}
		out = append(out, b)
	}
	return out, nil
}
func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

// entries reads the records of the folder in order.
func entries(dir string, size int64, each func(i int64, entry []byte)) {
	for n := int64(0); n*256 < size; n++ {
		w := 256
		if size-n*256 < 256 {
			w = int(size - n*256)
		}
		name := entriesPath(n, w)
		b := read(dir, name)
		for i := 0; i < w; i++ {
			if len(b) < 2 || len(b)-2 < int(b[0])<<8|int(b[1]) {
				fail("%s: record %d: the bundle ends before it", name, n*256+int64(i))
			}
			l := int(b[0])<<8 | int(b[1])
			each(n*256+int64(i), b[2:2+l])
			b = b[2+l:]
		}
		if len(b) != 0 {
			fail("%s: %d bytes too many", name, len(b))
		}
	}
}

func main() {
	if len(os.Args) < 2 || len(os.Args) > 3 {
		fmt.Fprintln(os.Stderr, "usage: verify EXPORTED-DIR [CHECKPOINTS.json]")
		os.Exit(2)
	}
	dir := os.Args[1]
	v, err := note.NewVerifier(strings.TrimSuffix(string(read(dir, "vkey")), "\n"))
	if err != nil {
		fail("vkey: %v", err)
	}
	tree := openCheckpoint(read(dir, "checkpoint"), v)
	if tree.N == 0 {
		fail("the log is empty") // tlog has no hash for the empty tree
	}
	hashes := tlog.TileHashReader(tree, tiles{dir})
	root, err := tlog.TreeHash(tree.N, hashes)
	if err != nil || root != tree.Hash {
		fail("the tiles do not lead to the signed root: %v", err)
	}
	entries(dir, tree.N, func(i int64, entry []byte) {
		leaf := tlog.RecordHash(entry)
		proof, err := tlog.ProveRecord(tree.N, i, hashes)
		if err == nil {
			err = tlog.CheckRecord(proof, tree.N, tree.Hash, i, leaf)
		}
		if err != nil {
			fail("record %d: %v", i, err)
		}
	})
	var collected []string
	if len(os.Args) == 3 {
		b, err := os.ReadFile(os.Args[2])
		if err == nil {
			err = json.Unmarshal(b, &collected)
		}
		if err != nil {
			fail("%v", err)
		}
	}
	last := int64(0)
	for i, text := range collected {
		c := openCheckpoint([]byte(text), v)
		if c.N > tree.N {
			fail("collected checkpoint %d covers %d records, the export has %d", i, c.N, tree.N)
		}
		if c.N < last {
			fail("collected checkpoint %d: the log shrank from %d to %d records", i, last, c.N)
		}
		last = c.N
		if c.N == 0 {
			continue
		}
		proof, err := tlog.ProveTree(tree.N, c.N, hashes)
		if err == nil {
			err = tlog.CheckTree(proof, tree.N, tree.Hash, c.N, c.Hash)
		}
		if err != nil {
			fail("collected checkpoint %d (%d records): %v", i, c.N, err)
		}
	}
	fmt.Printf("Go sumdb: %d records included, %d checkpoints consistent\n", tree.N, len(collected)+1)
}
