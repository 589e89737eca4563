package layer

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

func benchApply(b *testing.B, layer func() io.Reader, size int64, o ApplyOptions) {
	b.Helper()
	// ext4 does not hand out an inode for five seconds after it was freed and searches past it: trees are removed at the end.
	top := b.TempDir()
	b.SetBytes(size)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		dir := filepath.Join(top, strconv.Itoa(i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		if err := Apply(context.Background(), dir, layer(), o); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkApply10k(b *testing.B) {
	l := manyFiles(b, 10_000)
	for _, own := range []Ownership{OwnIDs, OwnXattr} {
		if own == OwnIDs && os.Geteuid() != 0 {
			continue
		}
		b.Run(string(own), func(b *testing.B) {
			benchApply(b, func() io.Reader { return bytes.NewReader(l) }, int64(len(l)), ApplyOptions{Ownership: own, Overlay: true})
		})
	}
}

// bigFile is a layer of one file of 500 MB, as a stream.
func bigFile(b testing.TB) (func() io.Reader, int64) {
	const size = 500 << 20
	head := rawHeader("big", '0', func(p []byte) { size256(p[124:136], size) })
	data := noise(1 << 20)
	return func() io.Reader {
		return io.MultiReader(bytes.NewReader(head), repeated(data, size), bytes.NewReader(make([]byte, 1024)))
	}, size
}

func BenchmarkApply500MB(b *testing.B) {
	open, size := bigFile(b)
	benchApply(b, open, size, ApplyOptions{Ownership: OwnXattr, Overlay: true})
}

func benchDiff(b *testing.B, layer io.Reader, size int64) {
	b.Helper()
	dir := filepath.Join(b.TempDir(), "tree")
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := Apply(context.Background(), dir, layer, ApplyOptions{Ownership: OwnXattr}); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if err := Diff(context.Background(), dir, io.Discard, DiffOptions{Ownership: OwnXattr}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDiff10k(b *testing.B) {
	l := manyFiles(b, 10_000)
	benchDiff(b, bytes.NewReader(l), int64(len(l)))
}

func BenchmarkDiff500MB(b *testing.B) {
	open, size := bigFile(b)
	benchDiff(b, open(), size)
}

// BenchmarkDiffEmpty is the diff of a step that did nothing.
func BenchmarkDiffEmpty(b *testing.B) {
	benchDiff(b, bytes.NewReader(archive(b)), 0)
}
