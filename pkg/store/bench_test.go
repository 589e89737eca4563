package store

import (
	"bytes"
	"io"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func BenchmarkPut(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20, 64 << 20} {
		b.Run(strconv.Itoa(size>>10)+"KiB", func(b *testing.B) {
			s, err := Open(b.Context(), filepath.Join(b.TempDir(), "s"), Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			data := random(1, size)
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				copy(data, strconv.Itoa(i))
				if _, err := s.Put(b.Context(), "x", bytes.NewReader(data)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	root := filepath.Join(b.TempDir(), "s")
	for b.Loop() {
		s, err := Open(b.Context(), root, Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	s, err := Open(b.Context(), filepath.Join(b.TempDir(), "s"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	d, err := s.Put(b.Context(), "x", bytes.NewReader(random(1, 64<<20)))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(d.Size)
	for b.Loop() {
		rc, err := s.Open(b.Context(), d)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, rc); err != nil {
			b.Fatal(err)
		}
		if err := rc.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSetRef(b *testing.B) {
	s, err := Open(b.Context(), filepath.Join(b.TempDir(), "s"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var d ocispec.Descriptor
	for i := 0; b.Loop(); i++ {
		if d, err = s.PutBytes(b.Context(), "x", []byte(strconv.Itoa(i))); err != nil {
			b.Fatal(err)
		}
		if err := s.SetRef(b.Context(), "app", d); err != nil {
			b.Fatal(err)
		}
	}
}

// A store of many records and refs: what a collection and an open cost.
func BenchmarkGC(b *testing.B) {
	s, err := Open(b.Context(), filepath.Join(b.TempDir(), "s"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for i := range 2000 {
		d, err := s.PutBytes(b.Context(), "x", []byte(strconv.Itoa(i)))
		if err != nil {
			b.Fatal(err)
		}
		if err := s.PutRecord("cache", strconv.Itoa(i), Record{Blobs: []digest.Digest{d.Digest}}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := s.GC(b.Context(), GCOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
