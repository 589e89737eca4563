package exe_test

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testexe"
	"github.com/manifestctl/manifestctl/pkg/exe"
)

func TestParseELF(t *testing.T) {
	for name, tc := range map[string]struct {
		in   testexe.ELF
		want exe.File
	}{
		"a static program": {
			in:   testexe.ELF{Arch: "arm64"},
			want: exe.File{Kind: exe.Program, Arch: "arm64", Machine: "AArch64", Bits: 64},
		},
		"a dynamic one": {
			in: testexe.ELF{Arch: "amd64", Type: 3, Interp: "/lib64/ld-linux-x86-64.so.2", Needed: []string{"liba.so.1", "libc.so.6"}, RunPath: "$ORIGIN/../lib:/opt/lib"},
			want: exe.File{
				Kind: exe.Program, Arch: "amd64", Machine: "x86-64", Bits: 64, Interp: "/lib64/ld-linux-x86-64.so.2",
				Needed: []string{"liba.so.1", "libc.so.6"}, RunPath: []string{"$ORIGIN/../lib", "/opt/lib"},
			},
		},
		"a library, big-endian": {
			in: testexe.ELF{Arch: "s390x", Type: 3, Soname: "liba.so.1", RPath: "/opt/lib"},
			want: exe.File{
				Kind: exe.Library, Arch: "s390x", Machine: "s390x", Bits: 64, Big: true, Soname: "liba.so.1", RPath: []string{"/opt/lib"},
			},
		},
		"an object": {
			in:   testexe.ELF{Arch: "386", Type: 1},
			want: exe.File{Kind: exe.Object, Arch: "386", Machine: "i386", Bits: 32},
		},
		"BPF": {
			in:   testexe.ELF{Machine: 247, Bits: 64, Type: 1},
			want: exe.File{Kind: exe.Object, Machine: "BPF", Bits: 64},
		},
		"x32": {
			in:   testexe.ELF{Arch: "amd64p32"},
			want: exe.File{Kind: exe.Program, Arch: "amd64p32", Machine: "x32", Bits: 32},
		},
		"Arm v7, by its attributes": {
			in: testexe.ELF{Arch: "arm", ARMArch: 10, Pad: 3 << 20},
			want: exe.File{
				Kind: exe.Program, Arch: "arm", Machine: "32-bit Arm", Bits: 32,
				ARM: &exe.ARM{EABI: 5, Float: exe.HardFloat, Version: 7, Profile: "A", CPU: "7-A"},
			},
		},
		"x86-64-v3, by its note": {
			in:   testexe.ELF{Arch: "amd64", X86: 7},
			want: exe.File{Kind: exe.Program, Arch: "amd64", Machine: "x86-64", Bits: 64, X86: 3},
		},
		"RISC-V": {
			in: testexe.ELF{Arch: "riscv64", ISA: "rv64i2p1_m2p0_a2p1_f2p2_d2p2_c2p0"},
			want: exe.File{
				Kind: exe.Program, Arch: "riscv64", Machine: "64-bit RISC-V", Bits: 64,
				RISCV: &exe.RISCV{Float: exe.HardFloat, Compressed: true, ISA: "rv64i2p1_m2p0_a2p1_f2p2_d2p2_c2p0"},
			},
		},
		"MIPS n32": {
			in: testexe.ELF{Arch: "mips64p32le"},
			want: exe.File{
				Kind: exe.Program, Arch: "mips64p32le", Machine: "MIPS n32 little-endian", Bits: 32,
				MIPS: &exe.MIPS{ABI: "n32", ISA: "mips64r2"},
			},
		},
		"PowerPC, ABI 2": {
			in:   testexe.ELF{Arch: "ppc64le"},
			want: exe.File{Kind: exe.Program, Arch: "ppc64le", Machine: "64-bit PowerPC little-endian", Bits: 64, PPC64: 2},
		},
		"NetBSD, by its note": {
			in:   testexe.ELF{Arch: "amd64", Note: "NetBSD"},
			want: exe.File{Kind: exe.Program, OS: "netbsd", Arch: "amd64", Machine: "x86-64", Bits: 64},
		},
		"FreeBSD, by its ABI": {
			in:   testexe.ELF{Arch: "amd64", OSABI: 9},
			want: exe.File{Kind: exe.Program, OS: "freebsd", Arch: "amd64", Machine: "x86-64", Bits: 64, OSABI: 9},
		},
		"Android, by its loader": {
			in:   testexe.ELF{Arch: "arm64", Type: 3, Interp: "/system/bin/linker64"},
			want: exe.File{Kind: exe.Program, OS: "android", Arch: "arm64", Machine: "AArch64", Bits: 64, Interp: "/system/bin/linker64"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.want.Format = exe.ELF
			b := tc.in.Bytes()
			got := exe.Parse(b)
			require.NotNil(t, got)
			assert.Equal(t, &tc.want, got)
			// In pieces, as a layer's reader hands them over.
			for _, size := range []int{1, 7, 512, 65536} {
				var c exe.Collector
				c.Reset(int64(len(b)))
				for rest := b; len(rest) > 0; {
					n := min(size, len(rest))
					if _, err := c.Write(rest[:n]); err != nil {
						require.ErrorIs(t, err, exe.ErrEnough)
						break
					}
					rest = rest[n:]
				}
				require.Equal(t, &tc.want, c.File(), "pieces of %d", size)
			}
		})
	}
}

// Every machine is named: what a platform calls it, or at least what people do.
func TestParseMachines(t *testing.T) {
	for _, arch := range testexe.Arches() {
		f := exe.Parse([]byte(testexe.Exec(arch)))
		require.NotNil(t, f, arch)
		assert.Equal(t, arch, f.Arch)
		assert.NotEmpty(t, f.Machine, arch)
	}
}

func TestParseScript(t *testing.T) {
	for in, want := range map[string]*exe.File{
		"#!/bin/sh\necho":                 {Interp: "/bin/sh"},
		"#! /usr/bin/env -S python3 -u\n": {Interp: "/usr/bin/env", Arg: "-S python3 -u"},
		"#!/bin/sh":                       {Interp: "/bin/sh"},
		"#!\n":                            nil,
		"#![allow(dead_code)]\n":          nil,
		"# no":                            nil,
		"":                                nil,
		"hi\n":                            nil,
		"#!/" + string(make([]byte, 300)): {Interp: "/"},
		"#!/x" + string(bytes.Repeat([]byte("y"), 400)): nil, // Linux sees no end of the name
	} {
		if want != nil {
			want.Format, want.Kind = exe.Script, exe.Program
		}
		assert.Equal(t, want, exe.Parse([]byte(in)), "%.40q", in)
	}
}

// What is no file of a format is nothing, or says less; nothing panics.
func TestParseDamaged(t *testing.T) {
	whole := testexe.ELF{Arch: "arm", Type: 3, Interp: "/lib/ld.so", Needed: []string{"liba.so"}, ARMArch: 10}.Bytes()
	for n := range whole {
		f := exe.Parse(whole[:n])
		if n < 52 {
			assert.Nil(t, f, "%d bytes", n)
		}
	}
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 0xff
		exe.Parse(b)
	}
	// A Java class begins as a Mach-O file for several machines does.
	java := binary.BigEndian.AppendUint32(nil, 0xcafebabe)
	java = binary.BigEndian.AppendUint32(java, 61)
	assert.Nil(t, exe.Parse(append(java, make([]byte, 4096)...)))
	assert.Nil(t, exe.Parse([]byte("MZ is how a text may begin, and it is no program for that\n")))
}

// A file that claims everything is everywhere costs no more than the limit.
func TestCollectorBound(t *testing.T) {
	b := testexe.ELF{Arch: "amd64", Type: 3, Interp: "/lib64/ld.so", Needed: []string{"liba.so"}, Pad: 60 << 20}.Bytes()
	for i := 64; i < 64+56*3; i += 56 { // sizes and places of all segments as large as the file
		binary.LittleEndian.PutUint32(b[i+4:], 6)
		binary.LittleEndian.PutUint64(b[i+32:], uint64(len(b)))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	require.NotNil(t, exe.Parse(b))
	runtime.ReadMemStats(&after)
	assert.LessOrEqual(t, after.TotalAlloc-before.TotalAlloc, uint64(exe.MaxKept+(4<<20)))
}

func TestCollectorSkip(t *testing.T) {
	want := testexe.ELF{Arch: "arm", ARMArch: 10, Pad: 4 << 20}
	b := want.Bytes()
	hole := len(b) - 300 - (4 << 20) + 4096
	var c exe.Collector
	c.Reset(int64(len(b)))
	_, _ = c.Write(b[:hole])
	c.Skip(3 << 20)
	_, _ = c.Write(b[hole+(3<<20):])
	require.NotNil(t, c.File())
	assert.Equal(t, exe.Parse(b), c.File())
}

// A file that claims hundreds of dynamic sections, all of them the same long one, is read once.
func TestParseManySections(t *testing.T) {
	one := testexe.ELF{Arch: "amd64", Type: 3, Interp: "/lib64/ld.so", Needed: []string{"liba.so"}}.Bytes()
	const phdr, count = 56, 400
	head := bytes.Clone(one[:64])
	table := one[64:]
	dynamic := []byte(nil)
	for i := 0; i < 4*phdr; i += phdr {
		if binary.LittleEndian.Uint32(table[i:]) == 2 {
			dynamic = table[i : i+phdr]
		}
	}
	require.NotNil(t, dynamic)
	b := append(append(bytes.Clone(one), table[:phdr]...), bytes.Repeat(dynamic, count-1)...)
	binary.LittleEndian.PutUint64(head[32:], uint64(len(one)))
	binary.LittleEndian.PutUint16(head[56:], count)
	copy(b, head)
	f := exe.Parse(b)
	require.NotNil(t, f)
	assert.Equal(t, []string{"liba.so"}, f.Needed)
}
