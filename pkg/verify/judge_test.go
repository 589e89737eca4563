package verify_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testexe"
	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/facts"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/verify"
)

// read reads a layer's facts.
func read(t testing.TB, entries ...testimage.Entry) verify.Layer {
	t.Helper()
	toc, f, err := facts.Read(t.Context(), bytes.NewReader(testimage.Layer(entries...).Tar), facts.Options{})
	require.NoError(t, err)
	return verify.Layer{TOC: toc, Facts: f}
}

// found are the findings, each as level, rule and text.
func found(t testing.TB, in verify.Input) []string {
	t.Helper()
	list, err := verify.Judge(in)
	require.NoError(t, err)
	out := []string{}
	for _, f := range list {
		out = append(out, fmt.Sprintf("%s %s %s", f.Level, f.Rule.ID, f.Text))
	}
	return out
}

func input(p string, config ocispec.ImageConfig, layers ...verify.Layer) verify.Input {
	parsed, err := platform.Parse(p)
	if err != nil {
		panic(err)
	}
	return verify.Input{Platform: parsed, Config: ocispec.Image{Config: config}, Layers: layers}
}

func entry(argv ...string) ocispec.ImageConfig { return ocispec.ImageConfig{Entrypoint: argv} }

func program(name, arch string) testimage.Entry { return testimage.Exec(name, testexe.Exec(arch)) }

func elf(name string, e testexe.ELF) testimage.Entry { return testimage.Exec(name, string(e.Bytes())) }

const loader = "/lib64/ld-linux-x86-64.so.2"

// dynamic is a program for amd64 that needs libraries.
func dynamic(needed ...string) testexe.ELF {
	return testexe.ELF{Arch: "amd64", Type: 3, Interp: loader, Needed: needed}
}

// library is one, as its own name.
func library(arch, soname string, needed ...string) testexe.ELF {
	return testexe.ELF{Arch: arch, Type: 3, Soname: soname, Needed: needed}
}

// glibc are a loader and a C library.
func glibc(dir string) []testimage.Entry {
	return []testimage.Entry{
		elf("lib64/ld-linux-x86-64.so.2", library("amd64", "ld-linux-x86-64.so.2")),
		elf(dir+"/libc.so.6", library("amd64", "libc.so.6", "ld-linux-x86-64.so.2")),
	}
}

func TestJudge(t *testing.T) {
	with := func(base []testimage.Entry, more ...testimage.Entry) []testimage.Entry {
		return append(slices.Clone(base), more...)
	}
	libc := glibc("lib/x86_64-linux-gnu")
	for name, tc := range map[string]struct {
		platform string
		config   ocispec.ImageConfig
		entries  []testimage.Entry
		allow    []verify.Allow
		want     []string
	}{
		"right": {"linux/arm64", entry("/app"), []testimage.Entry{program("app", "arm64")}, nil, nil},
		"wrong": {
			"linux/arm64", entry("/app"),
			[]testimage.Entry{program("app", "amd64")},
			nil,
			[]string{"error wrong-machine /app is x86-64"},
		},
		"the command, in PATH": {
			"linux/arm64",
			ocispec.ImageConfig{Cmd: []string{"app"}},
			[]testimage.Entry{program("usr/bin/app", "amd64")},
			nil,
			[]string{"error wrong-machine /usr/bin/app is x86-64"},
		},
		"the image's own PATH": {
			"linux/arm64",
			ocispec.ImageConfig{Cmd: []string{"app"}, Env: []string{"PATH=/opt/bin"}},
			[]testimage.Entry{program("opt/bin/app", "arm64"), program("usr/bin/other", "amd64")},
			nil,
			[]string{"warning foreign-program /usr/bin/other is x86-64"},
		},
		"relative to the working directory": {
			"linux/amd64",
			ocispec.ImageConfig{Entrypoint: []string{"./app"}, WorkingDir: "/srv"},
			[]testimage.Entry{program("srv/app", "arm64")},
			nil,
			[]string{"error wrong-machine /srv/app is AArch64"},
		},
		"what tini starts": {
			"linux/amd64",
			ocispec.ImageConfig{Entrypoint: []string{"/tini", "--"}, Cmd: []string{"app"}},
			[]testimage.Entry{program("tini", "amd64"), program("usr/local/bin/app", "riscv64")},
			nil,
			[]string{"error wrong-machine /usr/local/bin/app is 64-bit RISC-V"},
		},
		"a shell form": {
			"linux/amd64",
			ocispec.ImageConfig{Cmd: []string{"/bin/sh", "-c", "exec /srv/app --x"}},
			[]testimage.Entry{program("bin/sh", "amd64"), program("srv/app", "s390x")},
			nil,
			[]string{"error wrong-machine /srv/app is s390x"},
		},
		"a shell form of what is not there": {
			"linux/amd64",
			ocispec.ImageConfig{Cmd: []string{"/bin/sh", "-c", "/srv/app --x"}},
			[]testimage.Entry{program("bin/sh", "amd64")},
			nil,
			[]string{"warning missing-entrypoint the command runs /srv/app, which is not there"},
		},
		"missing": {
			"linux/amd64", entry("/app"), nil, nil, []string{"error missing-entrypoint the entrypoint /app is not there"},
		},
		"missing in PATH": {
			"linux/amd64",
			ocispec.ImageConfig{Cmd: []string{"app"}, Env: []string{"PATH=/bin"}},
			nil, nil,
			[]string{"error missing-entrypoint the command app is in no directory of PATH (/bin)"},
		},
		"nothing": {"linux/amd64", entry(), nil, nil, []string{"note nothing-to-run there is neither an entrypoint nor a command"}},
		"no execute permission": {
			"linux/amd64", entry("/app"),
			[]testimage.Entry{testimage.File("app", testexe.Exec("amd64"))},
			nil,
			[]string{"error not-executable /app is started, but its mode is 0644: nobody may execute it"},
		},
		"text": {
			"linux/amd64", entry("/app"),
			[]testimage.Entry{testimage.Exec("app", "echo hi\n")},
			nil,
			[]string{"error not-a-program /app is started, but it is neither a program nor a script that begins with #!"},
		},
		"an object": {
			"linux/amd64", entry("/app"),
			[]testimage.Entry{elf("app", testexe.ELF{Arch: "amd64", Type: 1})},
			nil,
			[]string{"error not-a-program /app is started, but it is an object file"},
		},
		"a directory": {
			"linux/amd64", entry("/app"),
			[]testimage.Entry{testimage.Dir("app")},
			nil,
			[]string{"error not-a-program /app is started, but it is no file"},
		},
		"through links": {
			"linux/amd64", entry("/app"),
			[]testimage.Entry{testimage.Symlink("app", "opt/x/current"), testimage.Symlink("opt/x/current", "/opt/x/1.0/app"), program("opt/x/1.0/app", "arm64")},
			nil,
			[]string{"error wrong-machine /opt/x/1.0/app is AArch64"},
		},
		"a hard link is one file": {
			"linux/amd64", entry("/app"),
			[]testimage.Entry{program("app", "arm64"), testimage.Hardlink("usr/bin/app", "app")},
			nil,
			[]string{"error wrong-machine /app is AArch64"},
		},
		"a script": {
			"linux/amd64", entry("/app"),
			[]testimage.Entry{testimage.Exec("app", "#!/bin/sh\n"), program("bin/sh", "arm64")},
			nil,
			[]string{"error wrong-machine /bin/sh is AArch64"},
		},
		"a script without its interpreter": {
			"linux/amd64", entry("/app"),
			[]testimage.Entry{testimage.Exec("app", "#!/bin/bash\n")},
			nil,
			[]string{"error missing-interpreter /app is a script for /bin/bash, which is not there"},
		},
		"env": {
			"linux/amd64", entry("/app"),
			[]testimage.Entry{testimage.Exec("app", "#!/usr/bin/env -S python3 -u\n"), program("usr/bin/env", "amd64"), program("usr/bin/python3", "arm64")},
			nil,
			[]string{"error wrong-machine /usr/bin/python3 is AArch64"},
		},
		"env of what is not there": {
			"linux/amd64", entry("/app"),
			[]testimage.Entry{testimage.Exec("app", "#!/usr/bin/env node\n"), program("usr/bin/env", "amd64")},
			nil,
			[]string{"error missing-interpreter /app is a script for node, which is in no directory of PATH"},
		},
		"a script in PATH may lack its interpreter": {
			"linux/amd64", entry("/app"),
			[]testimage.Entry{program("app", "amd64"), testimage.Exec("usr/bin/x", "#!/usr/bin/perl\n")},
			nil,
			[]string{"warning missing-interpreter /usr/bin/x is a script for /usr/bin/perl, which is not there"},
		},
		"libraries": {
			"linux/amd64", entry("/app"),
			with(libc, elf("app", dynamic("liba.so.1", "libc.so.6")), elf("usr/lib/x86_64-linux-gnu/liba.so.1", library("amd64", "liba.so.1", "libb.so.2")),
				elf("usr/lib/libb.so.2", library("amd64", "libb.so.2"))), nil, nil,
		},
		"a library that is not there": {
			"linux/amd64", entry("/app"), with(libc, elf("app", dynamic("liba.so.1", "libc.so.6"))), nil,
			[]string{"error missing-library /app needs liba.so.1, which is not there"},
		},
		"a library of a library": {
			"linux/amd64", entry("/app"), with(libc, elf("app", dynamic("liba.so.1")), elf("lib/liba.so.1", library("amd64", "liba.so.1", "libz.so.1"))), nil,
			[]string{"error missing-library /app needs /lib/liba.so.1, and that libz.so.1, which is not there"},
		},
		"a library of another machine": {
			"linux/amd64", entry("/app"), with(libc, elf("app", dynamic("liba.so.1")), elf("lib/liba.so.1", library("arm64", "liba.so.1"))), nil,
			[]string{
				"error missing-library /app needs liba.so.1, which is there as AArch64 only, at /lib/liba.so.1",
				"warning foreign-program /lib/liba.so.1 is AArch64",
			},
		},
		"the loader goes on after one": {
			"linux/amd64", entry("/app"),
			with(libc, elf("app", dynamic("liba.so.1")), elf("lib/x86_64-linux-gnu/liba.so.1", library("386", "liba.so.1")), elf("lib/liba.so.1", library("amd64", "liba.so.1"))), nil, nil,
		},
		"ld.so.conf": {
			"linux/amd64", entry("/app"),
			with(libc, elf("app", dynamic("liba.so.1")), elf("opt/x/liba.so.1", library("amd64", "liba.so.1")), testimage.File("etc/ld.so.conf", "# x\ninclude /etc/ld.so.conf.d/*.conf\n"),
				testimage.File("etc/ld.so.conf.d/x.conf", "/opt/x\n")), nil, nil,
		},
		"$ORIGIN of a runpath": {
			"linux/amd64", entry("/opt/x/bin/app"),
			with(libc, elf("opt/x/bin/app", testexe.ELF{Arch: "amd64", Type: 3, Interp: loader, Needed: []string{"liba.so.1"}, RunPath: "${ORIGIN}/../lib"}),
				elf("opt/x/lib/liba.so.1", library("amd64", "liba.so.1"))), nil, nil,
		},
		"an rpath counts for libraries of libraries, a runpath does not": {
			"linux/amd64", entry("/rpath", "/runpath"),
			with(libc, elf("rpath", testexe.ELF{Arch: "amd64", Type: 3, Interp: loader, Needed: []string{"liba.so.1"}, RPath: "/opt"}),
				elf("runpath", testexe.ELF{Arch: "amd64", Type: 3, Interp: loader, Needed: []string{"liba.so.1"}, RunPath: "/opt"}),
				elf("opt/liba.so.1", library("amd64", "liba.so.1", "libb.so.1")), elf("opt/libb.so.1", library("amd64", "libb.so.1"))), nil,
			[]string{"error missing-library /runpath needs /opt/liba.so.1, and that libb.so.1, which is not there"},
		},
		"LD_LIBRARY_PATH": {
			"linux/amd64",
			ocispec.ImageConfig{Entrypoint: []string{"/app"}, Env: []string{"LD_LIBRARY_PATH=/a:/b"}},
			with(libc, elf("app", dynamic("liba.so.1")), elf("b/liba.so.1", library("amd64", "liba.so.1"))), nil, nil,
		},
		"the driver's libraries come from the host": {
			"linux/amd64", entry("/app"), with(libc, elf("app", dynamic("libcuda.so.1"))), nil,
			[]string{"note missing-library /app needs libcuda.so.1, which is not there"},
		},
		"glibc's program among musl's": {
			"linux/amd64", entry("/app"),
			[]testimage.Entry{elf("app", dynamic("libc.so.6")), elf("lib/ld-musl-x86_64.so.1", library("amd64", "libc.musl-x86_64.so.1"))},
			nil,
			[]string{"error missing-interpreter /app needs the loader " + loader + ", which is not there: it is made for glibc, and the image has musl"},
		},
		"musl": {
			"linux/amd64", entry("/app"),
			[]testimage.Entry{
				elf("app", testexe.ELF{Arch: "amd64", Type: 3, Interp: "/lib/ld-musl-x86_64.so.1", Needed: []string{"libc.musl-x86_64.so.1", "liba.so.1"}}),
				elf("lib/ld-musl-x86_64.so.1", library("amd64", "libc.musl-x86_64.so.1")), testimage.Symlink("lib/libc.musl-x86_64.so.1", "ld-musl-x86_64.so.1"),
				elf("opt/liba.so.1", library("amd64", "liba.so.1")), testimage.File("etc/ld-musl-x86_64.path", "/lib\n/opt\n"),
			},
			nil, nil,
		},
		"a loader of another machine": {
			"linux/amd64", entry("/app"),
			[]testimage.Entry{elf("app", dynamic()), elf("lib64/ld-linux-x86-64.so.2", library("arm64", ""))},
			nil,
			[]string{"error missing-interpreter /app needs the loader " + loader + ", which is AArch64"},
		},
		"v7 in v6": {
			"linux/arm/v6", entry("/app"),
			[]testimage.Entry{elf("app", testexe.ELF{Arch: "arm", ARMArch: 10})},
			nil,
			[]string{"error too-new /app needs Arm v7, which linux/arm/v6 does not promise"},
		},
		"v6 in v7": {"linux/arm/v7", entry("/app"), []testimage.Entry{elf("app", testexe.ELF{Arch: "arm", ARMArch: 6})}, nil, nil},
		"x86-64-v3": {
			"linux/amd64", entry("/app"),
			[]testimage.Entry{elf("app", testexe.ELF{Arch: "amd64", X86: 7})},
			nil,
			[]string{"error too-new /app needs x86-64-v3, which linux/amd64 does not promise"},
		},
		"x86-64-v3 in v3": {"linux/amd64/v3", entry("/app"), []testimage.Entry{elf("app", testexe.ELF{Arch: "amd64", X86: 7})}, nil, nil},
		"a library of x86-64-v3": {
			"linux/amd64", entry("/app"), with(libc, elf("app", dynamic("liba.so.1")), elf("lib/liba.so.1", testexe.ELF{Arch: "amd64", Type: 3, Soname: "liba.so.1", X86: 4})), nil,
			[]string{"error too-new /lib/liba.so.1 needs x86-64-v3, which linux/amd64 does not promise; /app loads it"},
		},
		"glibc-hwcaps": {
			"linux/amd64", entry("/app"),
			with(libc, elf("app", dynamic("libc.so.6")), elf("usr/lib/glibc-hwcaps/x86-64-v3/liba.so.1", testexe.ELF{Arch: "amd64", Type: 3, X86: 4})), nil, nil,
		},
		"i386 on amd64": {
			"linux/amd64", entry("/app"),
			[]testimage.Entry{program("app", "386")},
			nil,
			[]string{"warning compatible-machine /app is i386, which needs a kernel that runs 32-bit programs"},
		},
		"x32": {
			"linux/amd64", entry("/app"), []testimage.Entry{program("app", "amd64p32")}, nil, []string{"error wrong-machine /app is x32"},
		},
		"arm on arm64": {
			"linux/arm64", entry("/app"), []testimage.Entry{program("app", "arm")}, nil, []string{"error wrong-machine /app is 32-bit Arm hard-float"},
		},
		"FreeBSD's on Linux": {
			"linux/amd64", entry("/app"),
			[]testimage.Entry{elf("app", testexe.ELF{Arch: "amd64", OSABI: 9})},
			nil,
			[]string{"error wrong-machine /app is a program of freebsd for x86-64"},
		},
		"Windows's on Linux": {
			"linux/amd64", entry("/app"),
			[]testimage.Entry{testimage.Exec("app", string(testexe.PE{Machine: 0x8664}.Bytes()))},
			nil,
			[]string{"error wrong-machine /app is a Windows program for x86-64"},
		},
		"macOS's on Linux": {
			"linux/arm64", entry("/app"),
			[]testimage.Entry{testimage.Exec("app", string(testexe.MachO{CPU: 0x0100000c}.Bytes()))},
			nil,
			[]string{"error wrong-machine /app is a macOS program for AArch64"},
		},
		"Windows": {
			"windows/amd64", entry(`C:\app\app.exe`),
			[]testimage.Entry{testimage.File("Files/App/app.exe", string(testexe.PE{Machine: 0xaa64}.Bytes())), testimage.File("Files/Windows/a.dll", string(testexe.PE{Machine: 0x8664, Library: true}.Bytes()))},
			nil,
			[]string{"error wrong-machine /Files/App/app.exe is a Windows program for AArch64"},
		},
		".NET's code for any machine": {
			"windows/arm64", entry("app"), []testimage.Entry{testimage.File("Files/app.exe", string(testexe.PE{Machine: 0x14c, Managed: true}.Bytes()))}, nil, nil,
		},
		"elsewhere": {
			"linux/amd64", entry("/app"),
			[]testimage.Entry{
				program("app", "amd64"), elf("node_modules/x/prebuilds/linux-arm64/x.node", library("arm64", "")), elf("node_modules/y/prebuilds/linux-arm64/y.node", library("arm64", "")),
				program("usr/lib/go/pkg/tool/linux_arm/asm", "arm"), testimage.File("lib/firmware/a.elf", testexe.Exec("arm")),
				testimage.File("usr/lib/x.bpf.o", string(testexe.ELF{Machine: 247, Bits: 64, Type: 1}.Bytes())),
				testimage.File("usr/lib/python3/setuptools/cli-arm64.exe", string(testexe.PE{Machine: 0xaa64}.Bytes())),
			},
			nil,
			[]string{
				"warning foreign-program 2 files below /node_modules are AArch64: /node_modules/x/prebuilds/linux-arm64/x.node, /node_modules/y/prebuilds/linux-arm64/y.node",
				"warning foreign-program /usr/lib/go/pkg/tool/linux_arm/asm is 32-bit Arm hard-float",
				"note foreign-object /lib/firmware/a.elf is 32-bit Arm hard-float",
				"note foreign-object /usr/lib/python3/setuptools/cli-arm64.exe is a Windows program for AArch64",
				"note foreign-object /usr/lib/x.bpf.o is BPF",
			},
		},
		"exceptions": {
			"linux/amd64", entry("/app"),
			[]testimage.Entry{program("app", "arm64"), program("usr/bin/qemu-arm64-static", "arm64"), elf("opt/a/b/x.node", library("arm64", "")), program("usr/bin/s", "s390x")},
			[]verify.Allow{{Path: "/app", Platform: "any"}, {Path: "/usr/bin/*", Platform: "linux/arm64"}, {Path: "opt/**", Platform: "any"}},
			[]string{"error wrong-machine /usr/bin/s is s390x"},
		},
		"a base of another platform": {
			"linux/arm64", entry("/app"),
			[]testimage.Entry{
				program("usr/bin/a", "amd64"), program("usr/bin/b", "amd64"), program("usr/bin/c", "amd64"), program("usr/bin/d", "amd64"), program("usr/bin/e", "amd64"),
				testimage.Exec("app", "#!/usr/bin/a\n"),
			},
			nil,
			[]string{"error wrong-base all 5 programs of a layer are of another platform: /usr/bin/a is x86-64, ..."},
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := input(tc.platform, tc.config, read(t, tc.entries...))
			in.Allow = tc.allow
			if tc.want == nil {
				tc.want = []string{}
			}
			assert.Equal(t, tc.want, found(t, in))
		})
	}
}

// What an upper layer hides, deletes or replaces is not judged; what is judged says its layer and step.
func TestJudgeLayers(t *testing.T) {
	base := read(t, testimage.Dir("usr/bin"), program("usr/bin/app", "amd64"), program("usr/bin/gone", "amd64"), program("opt/x/a", "amd64"))
	top := read(t, testimage.Whiteout("usr/bin/gone"), testimage.Opaque("opt"), program("opt/x/b", "arm64"))
	third := read(t, program("usr/bin/app", "amd64"))
	in := input("linux/arm64", entry("/usr/bin/app"), base, top, third)
	in.Config.History = []ocispec.History{
		{CreatedBy: "ADD rootfs /"},
		{CreatedBy: "ENV A=b", EmptyLayer: true},
		{CreatedBy: "RUN |1 A=b /bin/sh -c rm  -r /opt # buildkit"},
		{CreatedBy: "COPY bin/app /usr/bin/ # buildkit"},
	}
	list, err := verify.Judge(in)
	require.NoError(t, err)
	require.Len(t, list, 1)
	assert.Equal(t, "linux/arm64: /usr/bin/app is x86-64 (from layer 3, COPY bin/app /usr/bin/)", list[0].String())
	again, err := verify.Judge(in)
	require.NoError(t, err)
	assert.Equal(t, list, again, "equal contents give equal findings")
}

func TestParseAllow(t *testing.T) {
	for in, want := range map[string]bool{
		"/a=any": true, "/a/**/*.so=linux/arm64": true, "/a=b=linux/arm": true, "/a": false, "=any": false, "/a=": false, "/[=any": false, "/a=linux/z80": false, "/=any": false,
	} {
		_, err := verify.ParseAllow(in)
		assert.Equal(t, want, err == nil, "%q: %v", in, err)
	}
}
