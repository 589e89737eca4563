package emulate

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

func parse(t testing.TB, s string) platform.Platform {
	t.Helper()
	p, err := platform.Parse(s)
	require.NoError(t, err)
	return p
}

// fakeELF is the smallest file that debug/elf takes for a static program of this machine; dynamic adds PT_INTERP.
func fakeELF(dynamic bool) []byte {
	b := bytes.Clone(exit386) // it is asked for its version
	if dynamic {
		binary.LittleEndian.PutUint32(b[52:], 3) // PT_INTERP in place of PT_LOAD
	}
	return b
}

// bin makes a directory with files of these names: programs that are static, unless the name ends in one of the marks.
func bin(t testing.TB, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, n := range names {
		name, mark, _ := strings.Cut(n, " ")
		data, mode := fakeELF(mark == "dynamic"), os.FileMode(0o755)
		switch mark {
		case "plain":
			mode = 0o644
		case "script":
			data = []byte("#!/bin/sh\n")
		case "folder":
			require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o755))
			continue
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, mode))
	}
	return dir
}

func TestFor(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("emulators run linux programs on linux")
	}
	foreign, qemu := "linux/s390x", "s390x"
	if runtime.GOARCH == "s390x" {
		foreign, qemu = "linux/arm64", "aarch64"
	}
	arch := strings.TrimPrefix(foreign, "linux/")
	for name, tc := range map[string]struct {
		files    []string
		platform string
		options  func(dir string, o *Options)
		how      How
		file     string
		reason   string
	}{
		"static before plain":   {files: []string{"qemu-" + qemu, "qemu-" + qemu + "-static"}, how: Private, file: "qemu-" + qemu + "-static"},
		"plain name":            {files: []string{"qemu-" + qemu}, how: Private, file: "qemu-" + qemu},
		"dynamic":               {files: []string{"qemu-" + qemu + " dynamic"}, how: None, reason: "dynamically linked"},
		"dynamic, static later": {files: []string{"qemu-" + qemu + "-static dynamic", "qemu-" + qemu}, how: Private, file: "qemu-" + qemu},
		"not executable":        {files: []string{"qemu-" + qemu + "-static plain"}, how: None, reason: "not an executable file"},
		"a folder":              {files: []string{"qemu-" + qemu + "-static folder"}, how: None, reason: "not an executable file"},
		"a script":              {files: []string{"qemu-" + qemu + "-static script"}, how: None, reason: "not an ELF program"},
		"nothing":               {how: None, reason: "install qemu-user-static"},
		"another's only":        {files: []string{"qemu-hppa-static"}, how: None, reason: "--emulator " + arch + "=PATH"},
		"named": {files: []string{"mine", "qemu-" + qemu + "-static"}, how: Private, file: "mine", options: func(dir string, o *Options) {
			o.Emulators = map[string]string{arch: filepath.Join(dir, "mine")}
		}},
		"named and missing": {files: []string{"qemu-" + qemu + "-static"}, how: None, reason: "no such file", options: func(dir string, o *Options) {
			o.Emulators = map[string]string{arch: filepath.Join(dir, "mine")}
		}},
		"named with a colon": {files: []string{"a:b"}, how: None, reason: "colon", options: func(dir string, o *Options) {
			o.Emulators = map[string]string{arch: filepath.Join(dir, "a:b")}
		}},
		"relative directories are passed over": {files: []string{"qemu-" + qemu}, how: None, reason: "install", options: func(_ string, o *Options) { o.Path = ".:" }},
		"windows":                              {platform: "windows/amd64", how: None, reason: "windows"},
		"unknown":                              {platform: "linux/sparc64", how: None, reason: "no qemu-user"},
		"own machine":                          {platform: "linux/" + runtime.GOARCH, how: Native},
	} {
		t.Run(name, func(t *testing.T) {
			dir := bin(t, tc.files...)
			o := Options{Path: dir}
			if tc.options != nil {
				tc.options(dir, &o)
			}
			p := parse(t, foreign)
			if tc.platform != "" {
				p = parse(t, tc.platform)
			}
			s := newSearch(t.Context(), o)
			s.hostRead = true // no handlers on the host
			got := s.support(p)
			assert.Equal(t, tc.how, got.How, "%+v", got)
			if tc.file != "" {
				assert.Equal(t, filepath.Join(dir, tc.file), got.Path)
			}
			assert.Contains(t, got.Reason, tc.reason)
			if tc.how == None {
				assert.NotEmpty(t, got.Reason)
			}
		})
	}
}

func TestForError(t *testing.T) {
	_, err := For(t.Context(), parse(t, "windows/amd64"), Options{})
	require.ErrorIs(t, err, ErrNoEmulator)
	assert.True(t, strings.HasPrefix(err.Error(), "no emulator for windows/amd64: "), err.Error())
	got, err := For(t.Context(), Machine(), Options{Path: "/nonexistent"})
	require.NoError(t, err)
	assert.Equal(t, Native, got.How)
}

func TestList(t *testing.T) {
	got := List(t.Context(), Options{Path: "/nonexistent"})
	seen := map[platform.Platform]bool{}
	foreign := false
	for _, s := range got {
		assert.False(t, seen[s.Platform], s.Platform)
		seen[s.Platform] = true
		if s.How != Native {
			foreign = true
		}
		assert.False(t, foreign && s.How == Native, "native first")
		one, err := For(t.Context(), s.Platform, Options{Path: "/nonexistent"})
		assert.Equal(t, s.How == None, err != nil)
		assert.Equal(t, s, one, "For and List agree")
		assert.Equal(t, platform.Normalise(s.Platform), s.Platform)
	}
	for _, p := range platform.Known() {
		if p.OS == "linux" {
			assert.True(t, seen[p], "%s is known to package platform but not here", p)
		}
	}
}

func TestHostHandlers(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("binfmt_misc is linux's")
	}
	m, _ := machineOf("s390x")
	magic, mask := m.pattern()
	good := entry{enabled: true, interpreter: "/qemu", flags: "OCF", magic: magic, mask: mask}
	for name, tc := range map[string]struct {
		change func(e *entry)
		files  []string
		how    How
	}{
		"registered with F":         {func(*entry) {}, nil, Host},
		"without a mask":            {func(e *entry) { e.mask = nil; e.magic = e.magic[:7] }, nil, Host},
		"disabled":                  {func(e *entry) { e.enabled = false }, nil, None},
		"without F":                 {func(e *entry) { e.flags = "OC" }, nil, None},
		"at an offset":              {func(e *entry) { e.offset = 4 }, nil, None},
		"of another machine":        {func(e *entry) { e.magic = bytes.Clone(e.magic); e.magic[19] = 0x55 }, nil, None},
		"hidden by our own":         {func(*entry) {}, []string{"qemu-aarch64-static", "qemu-x86_64-static"}, None},
		"an emulator of our own is": {func(*entry) {}, []string{"qemu-s390x-static"}, Private},
	} {
		t.Run(name, func(t *testing.T) {
			e := good
			tc.change(&e)
			s := newSearch(t.Context(), Options{Path: bin(t, tc.files...)})
			s.machine = platform.Platform{OS: "linux", Arch: "ppc64le"}
			s.host, s.hostRead = []entry{e}, true
			assert.Equal(t, tc.how, s.support(parse(t, "linux/s390x")).How)
		})
	}
}

func TestHandlers(t *testing.T) {
	hs := Handlers(t.Context(), Options{Path: bin(t, "qemu-aarch64-static", "qemu-s390x-static", "qemu-x86_64-static", "qemu-i386-static", "qemu-mips dynamic")})
	for _, h := range hs {
		assert.Equal(t, "FPOC", h.Flags)
		assert.NotEqual(t, "manifestctl-"+runtime.GOARCH, h.Name, "never for the own machine")
		assert.NotEmpty(t, h.Line())
	}
	if runtime.GOARCH == "amd64" {
		require.Len(t, hs, 2)
		assert.Equal(t, "manifestctl-arm64", hs[0].Name)
	}
}

func TestLine(t *testing.T) {
	h := Handler{Name: "n", Magic: []byte{0x7f, 'E', 0, ':'}, Mask: []byte{0xff, 0, '\n', 1}, Path: "/usr/bin/qemu", Flags: "FPOC"}
	assert.Equal(t, `:n:M::\x7f\x45\x00\x3a:\xff\x00\x0a\x01:/usr/bin/qemu:FPOC`, h.Line())
	for name, change := range map[string]func(h *Handler){
		"colon in the path":   func(h *Handler) { h.Path = "/a:b" },
		"newline in the path": func(h *Handler) { h.Path = "/a\nb" },
		"colon in the name":   func(h *Handler) { h.Name = "a:b" },
		"slash in the name":   func(h *Handler) { h.Name = "../register" },
		"no name":             func(h *Handler) { h.Name = "" },
		"no path":             func(h *Handler) { h.Path = "" },
		"too long":            func(h *Handler) { h.Path = "/" + strings.Repeat("x", maxLine) },
	} {
		bad := h
		change(&bad)
		assert.Empty(t, bad.Line(), name)
	}
}

func TestArchOfELF(t *testing.T) {
	for _, m := range machines {
		magic, _ := m.pattern()
		head := append(bytes.Clone(magic), make([]byte, 64)...)
		head[7], head[8] = 3, 'A' // Linux ABI, AppImage's mark
		got, ok := ArchOfELF(head)
		assert.True(t, ok)
		assert.Equal(t, m.arch, got, "no two machines share a pattern")
		head[16], head[17] = head[17], head[16]
		_, ok = ArchOfELF(head)
		assert.False(t, ok, "the byte order counts")
	}
	for _, b := range [][]byte{nil, []byte("#!/bin/sh\n"), []byte("\x7fELF"), make([]byte, 100)} {
		_, ok := ArchOfELF(b)
		assert.False(t, ok)
	}
	n32 := append([]byte{}, make([]byte, 40)...)
	m, _ := machineOf("mipsle")
	magic, _ := m.pattern()
	copy(n32, magic)
	n32[36] = 0x20
	_, ok := ArchOfELF(n32)
	assert.False(t, ok, "n32 is not o32")
}

func TestArmVariant(t *testing.T) {
	for machine, want := range map[string]string{"armv7l": "v7", "armv6l": "v6", "armv5tejl": "v5", "aarch64": "v7", "": "v7", "armv8l": "v7"} {
		assert.Equal(t, want, armVariant(machine), machine)
	}
}

func TestAMD64Levels(t *testing.T) {
	if runtime.GOARCH != "amd64" || runtime.GOOS != "linux" {
		t.Skip("the levels are those of an amd64 CPU")
	}
	level := amd64Level()
	require.Contains(t, []int{1, 2, 3, 4}, level)
	for v, n := range map[string]int{"": 1, "/v2": 2, "/v3": 3, "/v4": 4} {
		got, err := For(t.Context(), parse(t, "linux/amd64"+v), Options{})
		if n <= level {
			require.NoError(t, err)
			assert.Equal(t, Native, got.How)
			continue
		}
		require.ErrorIs(t, err, ErrNoEmulator, "an emulator for the same machine cannot be registered")
		assert.Contains(t, err.Error(), "this CPU")
	}
}

// TestProbePrograms: the two tiny programs end with 0 under qemu, so a kernel that runs them tells the truth.
func TestProbePrograms(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("they are linux programs")
	}
	for qemu, program := range map[string][]byte{"qemu-i386-static": exit386, "qemu-arm-static": exitArm} {
		path, err := exec.LookPath(qemu)
		require.NoError(t, err, "install qemu-user-static")
		file := filepath.Join(t.TempDir(), "program")
		require.NoError(t, os.WriteFile(file, program, 0o755))
		out, err := exec.Command(path, file).CombinedOutput()
		require.NoError(t, err, "%s: %s", qemu, out)
		arch, ok := ArchOfELF(program)
		assert.True(t, ok)
		assert.Contains(t, qemu, map[string]string{"386": "i386", "arm": "arm"}[arch])
	}
	assert.False(t, runsELF([]byte("garbage")))
	if runtime.GOARCH == "amd64" {
		assert.False(t, runsELF(exitArm))
	}
}

func TestVersion(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("qemu-user runs on linux")
	}
	path, err := exec.LookPath("qemu-aarch64-static")
	require.NoError(t, err, "install qemu-user-static")
	assert.Regexp(t, `^[0-9]+\.[0-9]+`, version(t.Context(), path))
	assert.Empty(t, version(t.Context(), "/nonexistent"))
	slow := filepath.Join(t.TempDir(), "slow")
	require.NoError(t, os.WriteFile(slow, []byte("#!/bin/sh\necho qemu-x version 1.2.3 and more\n"), 0o755))
	assert.Equal(t, "1.2.3", version(t.Context(), slow))
}

func TestParseEntry(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		want entry
		err  error
	}{
		"debian's": {
			in:   "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\nmagic 7f454c46\nmask ffffffff\n",
			want: entry{enabled: true, interpreter: "/usr/libexec/qemu-binfmt/aarch64-binfmt-P", flags: "POCF", magic: []byte("\x7fELF"), mask: []byte{255, 255, 255, 255}},
		},
		"disabled":       {in: "disabled\ninterpreter /x\nflags: \noffset 3\nmagic 00\n", want: entry{interpreter: "/x", offset: 3, magic: []byte{0}}},
		"by extension":   {in: "enabled\ninterpreter /x\nflags: \nextension .py\n", want: entry{enabled: true, interpreter: "/x"}},
		"blanks in path": {in: "enabled\ninterpreter /a b/c\nflags: F\n", want: entry{enabled: true, interpreter: "/a b/c", flags: "F"}},
		"empty":          {in: "", err: errEntry},
		"status file":    {in: "enabled\n", err: errEntry},
		"not hex":        {in: "enabled\ninterpreter /x\nmagic zz\n", err: errEntry},
		"not a number":   {in: "enabled\ninterpreter /x\noffset x\n", err: errEntry},
		"negative":       {in: "enabled\ninterpreter /x\noffset -1\n", err: errEntry},
		"short mask":     {in: "enabled\ninterpreter /x\nmagic 0000\nmask ff\n", err: errEntry},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseEntry(strings.NewReader(tc.in))
			require.ErrorIs(t, err, tc.err)
			assert.Equal(t, tc.want, got)
		})
	}
}

func TestHostEntries(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	write("status", "enabled\n")
	write("register", "")
	write("qemu-x", "enabled\ninterpreter /x\nflags: F\n")
	write("broken", "?")
	assert.Len(t, hostEntries(dir), 1)
	write("status", "disabled\n")
	assert.Empty(t, hostEntries(dir))
	assert.Empty(t, hostEntries("/nonexistent"))
}

func FuzzParseEntry(f *testing.F) {
	for _, s := range []string{
		"enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\nmagic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n",
		"disabled\ninterpreter /x\n", "", "enabled", "enabled\nmagic 0\n", "enabled\ninterpreter \x00\noffset 99999999999999999999\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		e, err := parseEntry(strings.NewReader(in))
		if err != nil {
			return
		}
		for _, m := range machines {
			if e.runs(m) {
				assert.True(t, e.enabled)
				assert.Contains(t, e.flags, "F")
			}
		}
	})
}

func FuzzArchOfELF(f *testing.F) {
	f.Add(exit386)
	f.Add(exitArm)
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, head []byte) {
		arch, ok := ArchOfELF(head)
		assert.Equal(t, ok, arch != "")
		if ok {
			assert.True(t, bytes.HasPrefix(head, []byte("\x7fELF")))
		}
	})
}

func ExampleHandler_Line() {
	h := Handler{Name: "qemu-x", Magic: []byte("\x7fELF"), Mask: []byte{0xff, 0xff, 0xff, 0xff}, Path: "/usr/bin/qemu-x-static", Flags: "FPOC"}
	os.Stdout.WriteString(h.Line())
	// Output: :qemu-x:M::\x7f\x45\x4c\x46:\xff\xff\xff\xff:/usr/bin/qemu-x-static:FPOC
}

// remembered is a Versions.
type remembered map[string]string

func (r remembered) Version(file string) (string, bool) {
	v, ok := r[file]
	return v, ok
}

func (r remembered) Keep(file, version string) { r[file] = version }

// TestVersionsAreRemembered: an emulator is asked once, and again when it is another one.
func TestVersionsAreRemembered(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("files are told apart on linux only")
	}
	path := filepath.Join(t.TempDir(), "qemu")
	says := func(version string) {
		next := filepath.Join(t.TempDir(), "next")
		require.NoError(t, os.WriteFile(next, fmt.Appendf(nil, "#!/bin/sh\necho qemu version %s\n", version), 0o755))
		require.NoError(t, os.Rename(next, path))
		versions.Delete(path) // as another process
	}
	known := remembered{}
	ask := func() string {
		return newSearch(t.Context(), Options{Versions: known}).version(path)
	}
	says("7.2.0")
	assert.Equal(t, "7.2.0", ask())
	require.Len(t, known, 1)
	for file := range known {
		known[file] = "remembered"
	}
	assert.Equal(t, "remembered", ask())
	says("9.0.1")
	assert.Equal(t, "9.0.1", ask())
	says("nothing that is a number")
	assert.Empty(t, ask())
	assert.Len(t, known, 2, "what was not said is not remembered")
}
