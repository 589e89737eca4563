package packages_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"

	"github.com/manifestctl/manifestctl/pkg/packages"
)

// header is one of rpm's.
func header(name, version, release, arch string) []byte {
	var index, data []byte
	add := func(tag uint32, value string) {
		for _, v := range []uint32{tag, 6, uint32(len(data)), 1} {
			index = binary.BigEndian.AppendUint32(index, v)
		}
		data = append(append(data, value...), 0)
	}
	add(1000, name)
	add(1001, version)
	add(1002, release)
	add(1022, arch)
	b := binary.BigEndian.AppendUint32(nil, uint32(len(index)/16))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(append(b, index...), data...)
}

// bdb is a hash with one package.
func bdb() []byte {
	const page = 512
	le := binary.LittleEndian
	h := append(header("bash", "5.1", "2", "x86_64"), make([]byte, 600)...)
	b := make([]byte, 4*page)
	le.PutUint32(b[12:], 0x061561)
	le.PutUint32(b[20:], page)
	le.PutUint32(b[32:], 3)
	p := b[page:]
	p[25] = 13
	le.PutUint16(p[20:], 2)
	le.PutUint16(p[26:], 500)
	le.PutUint16(p[28:], 480)
	p[480] = 3
	le.PutUint32(p[484:], 2)
	le.PutUint32(p[488:], uint32(len(h)))
	for i := range 2 {
		p := b[(2+i)*page:]
		p[25] = 7
		n := copy(p[26:page], h)
		le.PutUint16(p[22:], uint16(n))
		le.PutUint32(p[16:], 3)
		h = h[n:]
	}
	return b
}

// ndb is a database of rpm's own format with one package.
func ndb() []byte {
	b := make([]byte, 4096)
	copy(b, "RpmP")
	binary.LittleEndian.PutUint32(b[12:], 1)
	for at := 32; at < 4096; at += 16 {
		copy(b[at:], "Slot")
	}
	binary.LittleEndian.PutUint32(b[36:], 1)
	binary.LittleEndian.PutUint32(b[40:], 256)
	h := header("bash", "5.1", "2", "x86_64")
	blob := append([]byte("BlbS"), 1, 0, 0, 0, 0, 0, 0, 0)
	blob = binary.LittleEndian.AppendUint32(blob, uint32(len(h)))
	return append(b, append(blob, h...)...)
}

// FuzzPackages holds every reader to its promises: an end, no panic, no more memory than the file is worth.
func FuzzPackages(f *testing.F) {
	kinds := []packages.Kind{packages.Dpkg, packages.APK, packages.RPMSQLite, packages.RPMNdb, packages.RPMBdb}
	f.Add(0, []byte(status))
	f.Add(1, []byte(installed))
	f.Add(4, bdb())
	f.Add(3, ndb())
	f.Add(2, append([]byte("SQLite format 3\x00"), make([]byte, 1024)...))
	f.Fuzz(func(t *testing.T, kind int, b []byte) {
		if kind < 0 || kind >= len(kinds) {
			return
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var err error
		if k := kinds[kind]; k.Random() {
			_, err = packages.ReadAt(k, bytes.NewReader(b), int64(len(b)))
		} else {
			_, err = packages.Read(k, bytes.NewReader(b))
		}
		runtime.ReadMemStats(&after)
		if err != nil && !errors.Is(err, packages.ErrInvalid) {
			t.Fatal(err)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > uint64(1<<20+256*len(b)) {
			t.Fatalf("%d bytes allocated for %d", used, len(b))
		}
	})
}
