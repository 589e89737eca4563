//go:build unix

package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func notAStore(t *testing.T, err error) *NotAStoreError {
	t.Helper()
	var e *NotAStoreError
	require.ErrorAs(t, err, &e)
	assert.NotEmpty(t, e.Why)
	return e
}

func TestOpenRefuses(t *testing.T) {
	for name, make := range map[string]func(t *testing.T, root string){
		"a file": func(t *testing.T, root string) { require.NoError(t, os.WriteFile(root, nil, 0o600)) },
		"a fifo": func(t *testing.T, root string) { require.NoError(t, unix.Mkfifo(root, 0o600)) },
		"somebody's directory": func(t *testing.T, root string) {
			require.NoError(t, os.Mkdir(root, 0o700))
			require.NoError(t, os.WriteFile(root+"/thesis.txt", nil, 0o600))
		},
		"an OCI layout": func(t *testing.T, root string) {
			require.NoError(t, os.MkdirAll(root+"/blobs/sha256", 0o700))
			require.NoError(t, os.WriteFile(root+"/oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600))
			require.NoError(t, os.WriteFile(root+"/index.json", []byte(`{}`), 0o600))
		},
		"D18 a newer store": func(t *testing.T, root string) {
			require.NoError(t, os.Mkdir(root, 0o700))
			require.NoError(t, os.WriteFile(root+"/"+versionFile, []byte(`{"manifestctlStore":2}`), 0o600))
		},
		"a damaged version": func(t *testing.T, root string) {
			require.NoError(t, os.Mkdir(root, 0o700))
			require.NoError(t, os.WriteFile(root+"/"+versionFile, nil, 0o600))
		},
		"below a file": func(t *testing.T, root string) {
			require.NoError(t, os.Mkdir(root, 0o700))
			require.NoError(t, os.WriteFile(root+"/x", nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			make(t, root)
			before := files(t, filepath.Dir(root))
			for _, o := range []Options{{}, {ReadOnly: true}} {
				at := root
				if name == "below a file" {
					at = root + "/x/y"
				}
				_, err := Open(t.Context(), at, o)
				notAStore(t, err)
				assert.Equal(t, before, files(t, filepath.Dir(root)), "nothing was written")
			}
		})
	}
}

func TestOpenTakesAFreshlyMadeFileSystem(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.Mkdir(root+"/lost+found", 0o700))
	sound(t, open(t, root))
}

func TestD15_ForeignOwnerIsRefused(t *testing.T) {
	root := "/"
	if os.Geteuid() == 0 {
		root = t.TempDir()
		open(t, root)
		require.NoError(t, os.Chown(root, 12345, 12345))
	}
	_, err := Open(t.Context(), root, Options{})
	assert.Contains(t, notAStore(t, err).Why, "owned by uid")
	if os.Geteuid() == 0 {
		// It can be read, and nothing of ours gets in its owner's way.
		before := files(t, root)
		r, err := Open(t.Context(), root, Options{ReadOnly: true})
		require.NoError(t, err)
		_, err = r.Stat("sha256:0000000000000000000000000000000000000000000000000000000000000000")
		assert.ErrorIs(t, err, ErrNotFound)
		sound(t, r)
		assert.Equal(t, before, files(t, root))
		require.NoError(t, r.Close())
	}
}

func TestD15_PermissionDenied(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0))
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
	asOrdinaryUser(t, func() {
		_, err := Open(context.Background(), dir+"/store", Options{})
		assert.ErrorIs(t, err, fs.ErrPermission)
		assert.Contains(t, notAStore(t, err).Why, "permission denied")
		_, err = Open(context.Background(), dir+"/store", Options{ReadOnly: true})
		assert.ErrorIs(t, err, fs.ErrPermission)
	})
}

func init() {
	children["umask"] = func(ctx context.Context, root, arg string) error {
		var mask int
		if _, err := fmt.Sscanf(arg, "%o", &mask); err != nil {
			return err
		}
		unix.Umask(mask)
		for range 2 {
			s, err := Open(ctx, root, Options{})
			if err != nil {
				return err
			}
			d, err := s.PutBytes(ctx, "x", []byte("hello"))
			if err != nil {
				return err
			}
			if err := s.SetRef(ctx, "hello", d); err != nil {
				return err
			}
			if err := s.PutRecord("cache", "k", Record{Data: []byte("x")}); err != nil {
				return err
			}
			if err := s.Close(); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestD15_UmaskIsOverruled(t *testing.T) {
	for _, mask := range []string{"0777", "0000", "0022"} {
		t.Run(mask, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "a", "store")
			run(t, child(t, "umask", root, mask))
			require.NoError(t, filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
				require.NoError(t, err)
				fi, err := e.Info()
				require.NoError(t, err)
				want := []fs.FileMode{fileMode, syncedMode}
				if e.IsDir() {
					want = []fs.FileMode{dirMode}
				}
				assert.Contains(t, want, fi.Mode().Perm(), p)
				return nil
			}))
			sound(t, open(t, root))
		})
	}
}

func TestD15_OthersLoseWriteAccess(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	require.NoError(t, os.Mkdir(root, 0o700))
	require.NoError(t, os.Chmod(root, 0o777))
	open(t, root)
	fi, err := os.Stat(root)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o755), fi.Mode().Perm())
}

func TestD15_ParentAndRootMayBeSymlinks(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(dir+"/real/store", 0o700))
	require.NoError(t, os.Symlink("real", dir+"/parent"))
	require.NoError(t, os.Symlink("real/store", dir+"/direct"))
	for _, root := range []string{dir + "/parent/store", dir + "/direct", dir + "/parent/../direct"} {
		assert.Equal(t, dir+"/real/store", open(t, root).Root())
	}
}

func TestD14_TMPDIRIsNotUsed(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	t.Setenv("TMPDIR", "/does/not/exist")
	t.Setenv("HOME", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	s := open(t, root)
	require.NoError(t, s.SetRef(t.Context(), "hello", put(t, s, "hello")))
	sound(t, s)
}

func TestD12_FileSystemsWithoutLocksAreNamed(t *testing.T) {
	s := fresh(t)
	for _, no := range []error{unix.ENOLCK, unix.EOPNOTSUPP, unix.ENOSYS} {
		e := notAStore(t, s.refuse(fmt.Errorf("locking x: %w", no)))
		assert.Contains(t, e.Why, "locks")
		assert.ErrorIs(t, e, no)
	}
}

// asOrdinaryUser runs f, which stays in its goroutine, without root's right to
// pass over permissions.
func asOrdinaryUser(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	if err := withoutPrivilege(f); errors.Is(err, errors.ErrUnsupported) {
		t.Skip("this system cannot give up root's rights for one thread: run the test as an ordinary user")
	}
}
