package emulate

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testexe"
)

func TestArchOfName(t *testing.T) {
	for name, want := range map[string]string{
		"usr/bin/qemu-aarch64":          "arm64", // tonistiigi/binfmt
		"/usr/bin/qemu-aarch64-static":  "arm64", // multiarch
		"./usr/bin/qemu-i386-static":    "386",   // Debian
		"bin/qemu-s390x":                "s390x",
		"usr/bin/buildkit-qemu-aarch64": "", // BuildKit's executes itself again
		"usr/bin/qemu-system-aarch64":   "",
		"usr/bin/qemu-img":              "",
		"usr/lib/qemu-aarch64":          "",
		"usr/bin/qemu-":                 "",
		"usr/bin":                       "",
		"":                              "",
	} {
		got, ok := ArchOfName(name)
		assert.Equal(t, want, got, name)
		assert.Equal(t, want != "", ok, name)
	}
}

// script stands for a qemu that says its version; the kernel runs it, but it is no ELF file.
const script = "#!/bin/sh\necho qemu-x version 7.2.22\n"

func TestInstall(t *testing.T) {
	if _, known := machineOf(runtime.GOARCH); !known {
		t.Skip("nothing is known of this machine")
	}
	other := "arm64"
	if runtime.GOARCH == other {
		other = "amd64"
	}
	host := testexe.Exec(runtime.GOARCH)
	dir := filepath.Join(t.TempDir(), "emulators")
	i, err := Install(t.Context(), dir, other, strings.NewReader(host))
	require.NoError(t, err)
	assert.Equal(t, other, i.Arch)
	assert.FileExists(t, i.Path)

	// It is found before all others.
	s := newSearch(t.Context(), Options{Dir: dir, Path: bin(t, "qemu-aarch64-static", "qemu-x86_64-static")})
	m, _ := machineOf(other)
	assert.Equal(t, i.Path, s.emulator(m).path)

	for name, data := range map[string]string{
		"another machine's": testexe.Exec(other),
		"a script":          script,
		"empty":             "",
		"dynamic":           string(testexe.ELF{Arch: runtime.GOARCH, Interp: "/lib/ld.so"}.Bytes()),
	} {
		_, err := Install(t.Context(), dir, other, strings.NewReader(data))
		require.ErrorIs(t, err, ErrNotEmulator, name)
	}
	_, err = Install(t.Context(), dir, "vax", strings.NewReader(host))
	require.ErrorIs(t, err, ErrNotEmulator)
	es, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, es, 1, "what was refused is not there, and what was there still is")
	data, err := os.ReadFile(i.Path)
	require.NoError(t, err)
	assert.True(t, bytes.Equal([]byte(host), data))
}
