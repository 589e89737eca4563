package exe_test

import (
	"runtime"
	"testing"

	"github.com/manifestctl/manifestctl/internal/testexe"
	"github.com/manifestctl/manifestctl/pkg/exe"
)

// FuzzExe holds every parser to its promises: no panic, no memory beyond what is kept of a file and what its lists
// may hold, and the same answer however the bytes come.
func FuzzExe(f *testing.F) {
	for _, arch := range testexe.Arches() {
		f.Add([]byte(testexe.Exec(arch)))
	}
	f.Add(testexe.ELF{Arch: "amd64", Type: 3, Interp: "/lib64/ld-linux-x86-64.so.2", Needed: []string{"liba.so", "libb.so"}, RunPath: "/a:/b", X86: 7}.Bytes())
	f.Add(testexe.ELF{Arch: "arm", Type: 3, Soname: "liba.so", RPath: "/a", ARMArch: 10}.Bytes())
	f.Add(testexe.ELF{Arch: "riscv64", ISA: "rv64i2p1", Note: "NetBSD"}.Bytes())
	for _, pe := range []testexe.PE{{Machine: 0x8664, Imports: []string{"KERNEL32.dll"}}, {Machine: 0x14c, Managed: true}, {Machine: 0xaa64, Library: true}} {
		f.Add(pe.Bytes())
	}
	f.Add(testexe.MachO{CPU: 0x0100000c, Libraries: []string{"/usr/lib/libSystem.B.dylib"}, Loader: "/usr/lib/dyld"}.Bytes())
	f.Add(testexe.Fat(7, 12))
	f.Add([]byte("#!/usr/bin/env python3\n"))
	f.Add([]byte("\x00asm\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got := exe.Parse(b)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > uint64(4<<20+64*len(b)) {
			t.Fatalf("%d bytes allocated for a file of %d", used, len(b))
		}
		var c exe.Collector
		c.Reset(int64(len(b)))
		for rest := b; len(rest) > 0; {
			n := min(13, len(rest))
			if _, err := c.Write(rest[:n]); err != nil {
				break
			}
			rest = rest[n:]
		}
		again := c.File()
		if (got == nil) != (again == nil) || got != nil && got.String() != again.String() {
			t.Fatalf("in pieces it is something else")
		}
	})
}
