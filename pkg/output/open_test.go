//go:build unix

package output

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/registry"
)

// TestOpenRefuses: what is wrong with a destination is said before anything is built, and nothing is made.
func TestOpenRefuses(t *testing.T) {
	env := Env{Store: openStore(t), Registry: registry.New(registry.Options{}), Dir: t.TempDir()}
	at := func(name string) string { return filepath.Join(env.Dir, name) }
	require.NoError(t, os.Mkdir(at("dir"), 0o755))
	require.NoError(t, os.WriteFile(at("dir/x"), nil, 0o644))
	require.NoError(t, os.WriteFile(at("file"), nil, 0o644))
	require.NoError(t, os.Mkdir(at("v2"), 0o755))
	require.NoError(t, os.WriteFile(at("v2/oci-layout"), []byte(`{"imageLayoutVersion":"2.0.0"}`), 0o644))
	require.NoError(t, os.Mkdir(at("broken"), 0o755))
	require.NoError(t, os.WriteFile(at("broken/oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
	require.NoError(t, os.WriteFile(at("broken/index.json"), []byte(`{"schemaVersion":2,"manifests":[`), 0o644))
	require.NoError(t, os.Symlink("nowhere", at("dangling")))
	before := files(t, env.Dir)

	for name, tc := range map[string]struct {
		spec    Spec
		wantErr error
	}{
		"unknown type":                      {spec: Spec{Type: "x"}, wantErr: ErrInvalid},
		"no type":                           {spec: Spec{}, wantErr: ErrInvalid},
		"oci without dest":                  {spec: Spec{Type: "oci"}, wantErr: ErrInvalid},
		"layout without dest":               {spec: Spec{Type: "oci", Dir: true}, wantErr: ErrInvalid},
		"layout on stdout":                  {spec: Spec{Type: "oci", Dir: true, Dest: "-"}, wantErr: ErrInvalid},
		"local without dest":                {spec: Spec{Type: "local"}, wantErr: ErrInvalid},
		"docker directory":                  {spec: Spec{Type: "docker", Dir: true, Dest: "d"}, wantErr: ErrInvalid},
		"no stdout":                         {spec: Spec{Type: "tar", Dest: "-"}, wantErr: ErrInvalid},
		"no parent":                         {spec: Spec{Type: "oci", Dest: "no/out.tar"}, wantErr: ErrInvalid},
		"parent is a file":                  {spec: Spec{Type: "oci", Dest: "file/out.tar"}, wantErr: syscall.ENOTDIR},
		"tar into a directory":              {spec: Spec{Type: "oci", Dest: "dir"}, wantErr: ErrInvalid},
		"tar with a slash":                  {spec: Spec{Type: "tar", Dest: "new/"}, wantErr: ErrInvalid},
		"layout into a file":                {spec: Spec{Type: "oci", Dir: true, Dest: "file"}, wantErr: ErrInvalid},
		"layout into something else":        {spec: Spec{Type: "oci", Dir: true, Dest: "dir"}, wantErr: ErrInvalid},
		"layout of another version":         {spec: Spec{Type: "oci", Dir: true, Dest: "v2"}, wantErr: ErrInvalid},
		"layout with a broken index":        {spec: Spec{Type: "oci", Dir: true, Dest: "broken"}},
		"local into a file":                 {spec: Spec{Type: "local", Dest: "file"}, wantErr: ErrInvalid},
		"local into a link to nothing":      {spec: Spec{Type: "local", Dest: "dangling"}, wantErr: ErrInvalid},
		"push without a name":               {spec: Spec{Type: "registry"}, wantErr: ErrInvalid},
		"push=true without a name":          {spec: Spec{Type: "image", Push: true}, wantErr: ErrInvalid},
		"a name that is none":               {spec: Spec{Type: "image", Names: []string{"A B"}}, wantErr: ErrInvalid},
		"a name with a digest":              {spec: Spec{Type: "image", Names: []string{"a@sha256:" + string(bytes.Repeat([]byte("a"), 64))}}, wantErr: ErrInvalid},
		"a name that is a place":            {spec: Spec{Type: "image", Names: []string{"oci:x"}}, wantErr: ErrInvalid},
		"a parent that cannot be looked at": {spec: Spec{Type: "oci", Dest: "a\x00b"}, wantErr: syscall.EINVAL},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(tc.spec, env)
			require.Error(t, err)
			if tc.wantErr != nil {
				require.ErrorIs(t, err, tc.wantErr)
			}
			assert.Equal(t, before, files(t, env.Dir))
		})
	}
	_, err := Open(Spec{Type: "image"}, Env{})
	require.Error(t, err)
	_, err = Open(Spec{Type: "registry", Names: []string{"a"}}, Env{Store: env.Store})
	require.Error(t, err)
}

// TestOpen/D03: a place that cannot be written is found by trying: modes tell nothing about a read-only file system, and
// nothing to root.
func TestOpen(t *testing.T) {
	t.Run("D03_cannot_be_written", func(t *testing.T) {
		dir := "/proc"
		if runtime.GOOS != "linux" {
			dir = t.TempDir()
			require.NoError(t, os.Chmod(dir, 0o555))
		}
		for _, s := range []Spec{
			{Type: "oci", Dest: dir + "/x.tar"},
			{Type: "oci", Dest: dir + "/x", Dir: true},
			{Type: "local", Dest: dir + "/x/y"},
			{Type: "local", Dest: dir},
		} {
			_, err := Open(s, Env{})
			require.Error(t, err, s.Dest)
			assert.ErrorContains(t, err, s.Dest)
		}
	})
	t.Run("nothing_stays", func(t *testing.T) {
		env := Env{Store: openStore(t), Dir: t.TempDir(), Stdout: &bytes.Buffer{}}
		for _, arg := range []string{"type=oci,dest=a", "type=docker,dest=a", "type=tar,dest=a", "type=oci,dest=b,tar=false", "b/c/d", "-", "type=image"} {
			open(t, env, arg)
		}
		assert.Empty(t, files(t, env.Dir))
	})
	t.Run("terminal", func(t *testing.T) {
		pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
		if err != nil {
			t.Skip("no pseudo terminals here:", err)
		}
		defer pty.Close()
		for _, kind := range []string{"oci", "docker", "tar"} {
			_, err = Open(Spec{Type: kind, Dest: "-"}, Env{Stdout: pty})
			require.ErrorIs(t, err, ErrInvalid)
			assert.ErrorContains(t, err, "terminal")
		}
		null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		require.NoError(t, err)
		defer null.Close()
		_, err = Open(Spec{Type: "tar", Dest: "-"}, Env{Stdout: null})
		require.NoError(t, err)
	})
}

func TestFileDestinations(t *testing.T) {
	p := productOf(t, []string{"a:1"}, amd64())
	t.Run("a device is written to, never replaced", func(t *testing.T) {
		env := Env{Dir: t.TempDir()}
		fifo := filepath.Join(env.Dir, "fifo")
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			t.Skip("no fifos here:", err)
		}
		reader, err := os.OpenFile(fifo, os.O_RDONLY|syscall.O_NONBLOCK, 0) // does not wait for a writer
		require.NoError(t, err)
		defer reader.Close()
		read := make(chan []byte, 1)
		d := open(t, env, "type=oci,dest=fifo")
		written := make(chan error, 1)
		go func() { written <- d.Write(t.Context(), p) }()
		go func() {
			var all []byte
			buf := make([]byte, 4096)
			for len(all) < 4 || !bytes.HasSuffix(all, make([]byte, tarEnd)) {
				n, err := reader.Read(buf)
				if all = append(all, buf[:n]...); err != nil && !errors.Is(err, io.EOF) {
					break
				}
				if n == 0 {
					time.Sleep(time.Millisecond)
				}
			}
			read <- all
		}()
		require.NoError(t, <-written)
		select {
		case data := <-read:
			requireBlobs(t, untar(t, data), p)
		case <-time.After(time.Minute):
			t.Fatal("nothing came through the fifo")
		}
		info, err := os.Lstat(fifo)
		require.NoError(t, err)
		assert.Equal(t, fs.ModeNamedPipe, info.Mode().Type())
	})
	t.Run("D01_no_space", func(t *testing.T) {
		full := fullDevice(t)
		err := open(t, Env{}, "type=oci,dest="+full).Write(t.Context(), p)
		require.ErrorIs(t, err, syscall.ENOSPC)
		assert.ErrorContains(t, err, full)
	})
	t.Run("what a link leads to is replaced", func(t *testing.T) {
		env := Env{Dir: t.TempDir()}
		require.NoError(t, os.Mkdir(filepath.Join(env.Dir, "real"), 0o755))
		target := filepath.Join(env.Dir, "real", "out.tar")
		require.NoError(t, os.WriteFile(target, []byte("old"), 0o640))
		require.NoError(t, os.Chmod(target, 0o640))
		require.NoError(t, os.Symlink("real/out.tar", filepath.Join(env.Dir, "out.tar")))
		require.NoError(t, open(t, env, "type=oci,dest=out.tar").Write(t.Context(), p))
		info, err := os.Lstat(target)
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o640), info.Mode())
		assert.Greater(t, info.Size(), int64(100))
		assert.Equal(t, []string{"out.tar", "real"}, files(t, env.Dir))
		assert.Equal(t, []string{"out.tar"}, files(t, filepath.Join(env.Dir, "real")))
	})
	t.Run("a long name", func(t *testing.T) {
		env := Env{Dir: t.TempDir()}
		name := string(bytes.Repeat([]byte("n"), 255))
		require.NoError(t, open(t, env, "type=oci,dest="+name).Write(t.Context(), p))
		assert.Equal(t, []string{name}, files(t, env.Dir))
	})
}
