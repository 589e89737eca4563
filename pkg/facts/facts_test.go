package facts_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testexe"
	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/facts"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/store"
)

func TestRead(t *testing.T) {
	data := testimage.Layer(
		testimage.Exec("bin/app", testexe.Exec("arm64")), testimage.File("etc/motd", "hi\n"), testimage.Hardlink("bin/other", "bin/app"),
		testimage.File("etc/ld.so.conf", "/opt/lib\n"), testimage.File("lib/apk/db/installed", "P:musl\nV:1\n"),
		testimage.Exec("bin/script", "#!/bin/sh -e\n"), testimage.File("var/lib/rpm/rpmdb.sqlite", "no database"), testimage.Whiteout("bin/gone"),
	)
	toc, f, err := facts.Read(t.Context(), bytes.NewReader(data.Tar), facts.Options{})
	require.NoError(t, err)
	assert.Equal(t, data.DiffID(), f.DiffID)
	plain, err := layer.ReadTOC(t.Context(), bytes.NewReader(data.Tar), layer.Limits{})
	require.NoError(t, err)
	assert.Equal(t, plain, toc, "the table of contents is the same")
	at := map[string]*facts.File{}
	for _, e := range toc.Entries {
		if found, ok := f.Find(e.Offset); ok && e.Type == tar.TypeReg && e.Size > 0 {
			at[e.Name] = found
		}
	}
	require.Len(t, at, 5)
	assert.Equal(t, "arm64", at["bin/app"].Exe.Arch)
	assert.Equal(t, "/bin/sh", at["bin/script"].Exe.Interp)
	assert.Equal(t, "/opt/lib\n", at["etc/ld.so.conf"].Text)
	assert.Equal(t, "musl", at["lib/apk/db/installed"].Packages[0].Name)
	assert.NotEmpty(t, at["var/lib/rpm/rpmdb.sqlite"].Problem)

	given, _, err := facts.Read(t.Context(), bytes.NewReader(data.Tar), facts.Options{DiffID: data.DiffID()})
	require.NoError(t, err)
	assert.Equal(t, toc, given, "whoever knows the digest gets the same")
	_, _, err = facts.Read(t.Context(), bytes.NewReader(data.Tar[:700]), facts.Options{})
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

// A sparse file's holes are not in the archive: what stands behind them is found all the same.
func TestReadSparse(t *testing.T) {
	program := testexe.ELF{Arch: "arm", ARMArch: 10, Pad: 1 << 20}.Bytes()
	head, tail := program[:512], program[len(program)-1024:]
	hole := len(program) - len(tail)
	m := strings.Join([]string{"2", "0", "512", strconv.Itoa(hole), "1024", ""}, "\n")
	m += strings.Repeat("\x00", 512-len(m))
	body := m + string(head) + string(tail)
	records := ""
	for _, r := range [][2]string{{"GNU.sparse.major", "1"}, {"GNU.sparse.minor", "0"}, {"GNU.sparse.name", "app"}, {"GNU.sparse.realsize", strconv.Itoa(len(program))}} {
		records += record(r[0], r[1])
	}
	archive := testimage.Layer(testimage.File("x", body)).Tar
	extended := testimage.Layer(testimage.File("x", records)).Tar[:1024]
	extended = patch(extended, func(h []byte) { h[156] = 'x' })
	_, f, err := facts.Read(t.Context(), bytes.NewReader(append(extended, archive...)), facts.Options{})
	require.NoError(t, err)
	require.Len(t, f.Files, 1)
	assert.Equal(t, 7, f.Files[0].Exe.ArmVersion())
}

// record is one of PAX: its length counts itself.
func record(key, value string) string {
	n := len(key) + len(value) + 3
	for n != len(strconv.Itoa(n))+len(key)+len(value)+3 {
		n = len(strconv.Itoa(n)) + len(key) + len(value) + 3
	}
	return strconv.Itoa(n) + " " + key + "=" + value + "\n"
}

// patch changes a tar header and its checksum.
func patch(b []byte, change func([]byte)) []byte {
	b = bytes.Clone(b)
	change(b)
	sum := 0
	for i, c := range b[:512] {
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum += int(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func TestCache(t *testing.T) {
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "store"), store.Options{})
	require.NoError(t, err)
	defer st.Close()
	c := facts.Cache{Store: st}
	toc, f, err := facts.Read(t.Context(), bytes.NewReader(testimage.Layer(testimage.Exec("app", testexe.Exec("s390x"))).Tar), facts.Options{})
	require.NoError(t, err)
	_, _, ok := c.Get(toc.DiffID)
	assert.False(t, ok)
	require.NoError(t, c.Put(toc, f))
	_, again, ok := c.Get(toc.DiffID)
	require.True(t, ok)
	assert.Equal(t, f, again)
	blob := digest.FromString("compressed")
	_, ok = c.Unpacked(blob)
	assert.False(t, ok)
	require.NoError(t, c.PutUnpacked(blob, toc.DiffID))
	got, ok := c.Unpacked(blob)
	assert.True(t, ok)
	assert.Equal(t, toc.DiffID, got)
	_, _, ok = facts.Cache{}.Get(toc.DiffID)
	assert.False(t, ok, "without a store nothing is known")
	require.NoError(t, facts.Cache{}.Put(toc, f))
}
