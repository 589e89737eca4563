package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// inMountNamespace makes cmd run where it may mount: as root of a user
// namespace of its own, which an ordinary user gets as well.
func inMountNamespace(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	attr := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	probe := exec.Command(cmd.Path)
	probe.Env = append(os.Environ(), childEnv+"=mountable")
	probe.Args = []string{cmd.Path, t.TempDir(), ""}
	probe.SysProcAttr = attr
	if out, err := probe.CombinedOutput(); err != nil {
		t.Skipf("this machine gives no user namespace with mounts (%v %s): see `manifestctl doctor`", err, out)
	}
	cmd.SysProcAttr = attr
}

func init() {
	children["mountable"] = func(_ context.Context, root, _ string) error {
		return unix.Mount("t", root, "tmpfs", 0, "")
	}
	children["no space"] = noSpaceChild
	children["read-only"] = readOnlyChild
	children["other disk"] = otherDiskChild
	children["file size"] = fileSizeChild
	children["work"] = func(ctx context.Context, root, _ string) error { return workload(ctx, root, 1) }
}

// workload does everything that writes.
func workload(ctx context.Context, root string, seed uint64) error {
	s, err := Open(ctx, root, Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	d, err := s.Put(ctx, "layer", bytes.NewReader(random(seed, 30_000)))
	if err != nil {
		return err
	}
	if err := s.PutRecord("cache", strconv.FormatUint(seed, 10), Record{Data: random(seed, 3000), Blobs: []digest.Digest{d.Digest}}); err != nil {
		return err
	}
	config, err := s.PutBytes(ctx, "config", []byte("{}"))
	if err != nil {
		return err
	}
	m, err := s.PutBytes(ctx, "application/vnd.oci.image.manifest.v1+json", manifestJSON(config, d))
	if err != nil {
		return err
	}
	big, err := s.Put(ctx, "layer", bytes.NewReader(random(seed+1, 100_000)))
	if err != nil {
		return err
	}
	if err := s.PutExpected(ctx, big, bytes.NewReader(random(seed+1, 100_000))); err != nil {
		return err
	}
	if err := s.SetRef(ctx, "app:1", m); err != nil {
		return err
	}
	if err := s.SetRef(ctx, "app:2", m); err != nil {
		return err
	}
	if err := s.DeleteRef(ctx, "app:2"); err != nil {
		return err
	}
	_, err = s.GC(ctx, GCOptions{})
	return err
}

// noSpaceChild runs the workload on file systems that are a little larger each
// time, until it succeeds. arg is what grows: "size" or "nr_inodes".
func noSpaceChild(ctx context.Context, root, arg string) error {
	step, roomy := 4096, "size=16m,nr_inodes=1000"
	if arg == "nr_inodes" {
		step = 1
	}
	failed := 0
	for n := 1; ; n++ {
		dir := filepath.Join(root, strconv.Itoa(n))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if err := unix.Mount("t", dir, "tmpfs", 0, fmt.Sprintf("mode=700,%s=%d", arg, n*step)); err != nil {
			return err
		}
		at := filepath.Join(dir, "store")
		err := workload(ctx, at, 1)
		if err != nil {
			failed++
			if !errors.Is(err, ErrNoSpace) {
				return fmt.Errorf("%s=%d: another error: %w", arg, n*step, err)
			}
			if !strings.Contains(err.Error(), dir) {
				return fmt.Errorf("%s=%d: the place is not named: %w", arg, n*step, err)
			}
			if arg == "nr_inodes" && !strings.Contains(err.Error(), "no inodes left") {
				return fmt.Errorf("%s=%d: inodes are not named: %w", arg, n*step, err)
			}
		}
		if ents, rerr := os.ReadDir(filepath.Join(at, ingestDir)); rerr == nil && len(ents) > 0 {
			return fmt.Errorf("%s=%d: %s stayed behind", arg, n*step, ents[0].Name())
		}
		// With room again nothing is wrong and the same work succeeds.
		if rerr := unix.Mount("t", dir, "tmpfs", unix.MS_REMOUNT, roomy); rerr != nil {
			return rerr
		}
		if cerr := soundChild(ctx, at); cerr != nil {
			return fmt.Errorf("%s=%d: after %v: %w", arg, n*step, err, cerr)
		}
		if werr := workload(ctx, at, 1); werr != nil {
			return fmt.Errorf("%s=%d: again: %w", arg, n*step, werr)
		}
		if uerr := unix.Unmount(dir, 0); uerr != nil {
			return uerr
		}
		if err == nil {
			if failed < 5 {
				return fmt.Errorf("only %d sizes were too small", failed)
			}
			return nil
		}
	}
}

func soundChild(ctx context.Context, root string) error {
	s, err := Open(ctx, root, Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	found, err := s.Check(ctx, CheckOptions{ReadData: true})
	if err != nil {
		return err
	}
	for _, f := range found {
		if !f.Harmless {
			return errors.New(f.String())
		}
	}
	return nil
}

func TestD01_NoSpaceAtEveryWrite(t *testing.T) {
	cmd := child(t, "no space", t.TempDir(), "size")
	inMountNamespace(t, cmd)
	run(t, cmd)
}

func TestD02_NoInodesLeft(t *testing.T) {
	cmd := child(t, "no space", t.TempDir(), "nr_inodes")
	inMountNamespace(t, cmd)
	run(t, cmd)
}

func TestD01_NoSpaceSaysHowMuchIsNeeded(t *testing.T) {
	err := storageError("/store/ingest/blob-1", 70, &os.PathError{Op: "write", Path: "/store/ingest/blob-1", Err: unix.ENOSPC})
	assert.ErrorIs(t, err, ErrNoSpace)
	assert.ErrorIs(t, err, unix.ENOSPC)
	assert.Contains(t, err.Error(), "no space left in /store/ingest, 70 more bytes needed")
	err = storageError("/store/ingest/blob-1", 0, unix.EDQUOT)
	assert.ErrorIs(t, err, ErrNoSpace)
	assert.Contains(t, err.Error(), "quota")
}

func fileSizeChild(ctx context.Context, root, _ string) error {
	signal.Ignore(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 50_000, Max: 50_000}); err != nil {
		return err
	}
	if err := workload(ctx, root, 1); !errors.Is(err, ErrNoSpace) {
		return fmt.Errorf("got %w", err)
	}
	return soundChild(ctx, root)
}

func TestD02_FileSizeLimit(t *testing.T) {
	run(t, child(t, "file size", filepath.Join(t.TempDir(), "store"), ""))
}

func readOnlyChild(ctx context.Context, root, _ string) error {
	if err := unix.Mount("t", root, "tmpfs", 0, "mode=700"); err != nil {
		return err
	}
	at := filepath.Join(root, "store")
	if err := workload(ctx, at, 1); err != nil {
		return err
	}
	if err := unix.Mount("t", root, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return err
	}
	_, err := Open(ctx, at, Options{})
	if e := (*NotAStoreError)(nil); !errors.As(err, &e) || !errors.Is(err, unix.EROFS) || !strings.Contains(e.Why, "read-only") {
		return fmt.Errorf("opening for writing: %w", err)
	}
	s, err := Open(ctx, at, Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer s.Close()
	m, err := s.GetRef("app:1")
	if err != nil {
		return err
	}
	if _, err := s.Stat(m.Digest); err != nil {
		return err
	}
	if _, err := s.GetRecord("cache", "1"); err != nil {
		return err
	}
	if _, err := get(ctx, s, m); err != nil {
		return err
	}
	found, err := s.Check(ctx, CheckOptions{ReadData: true})
	if err != nil || len(found) > 0 {
		return fmt.Errorf("check: %v %w", found, err)
	}
	return nil
}

func TestD03_ReadOnlyFileSystem(t *testing.T) {
	cmd := child(t, "read-only", t.TempDir(), "")
	inMountNamespace(t, cmd)
	run(t, cmd)
}

func otherDiskChild(ctx context.Context, root, arg string) error {
	if err := unix.Mount("t", root, "tmpfs", 0, "mode=700"); err != nil {
		return err
	}
	s, err := Open(ctx, root, Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	if err := unix.Mount("t", filepath.Join(root, blobsDir, "sha256"), "tmpfs", 0, "mode=700"); err != nil {
		return err
	}
	if err := workload(ctx, root, 1); err != nil {
		return err
	}
	d, err := s.PutBytes(ctx, "x", []byte("hello"))
	if err != nil {
		return err
	}
	f, err := os.OpenFile(s.Path(d.Digest), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(f, "jello"); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if _, err := get(ctx, s, d); !errors.Is(err, ErrCorrupt) {
		return fmt.Errorf("damage: %w", err)
	}
	if _, err := s.Stat(d.Digest); !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("setting aside: %w", err)
	}
	return soundChild(ctx, root)
}

func TestD14_BlobsOnAnotherFileSystem(t *testing.T) {
	cmd := child(t, "other disk", t.TempDir(), "")
	inMountNamespace(t, cmd)
	run(t, cmd)
}

// Killed at the n-th call of each kind that changes the disk, the store is sound
// and the same work succeeds.
func TestD06_KilledAtEverySyscall(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed: apt-get install strace")
	}
	// Several calls stand for one, by architecture.
	for _, calls := range []string{"?rename,?renameat,renameat2", "?unlink,unlinkat", "?open,openat", "write", "fsync", "flock", "?mkdir,mkdirat", "?chmod,?fchmod,fchmodat"} {
		t.Run(calls, func(t *testing.T) {
			step := map[string]int{"?open,openat": 7, "flock": 5}[calls]
			if testing.Short() {
				step = 4 * max(step, 1)
			}
			for n := 1; n <= 200; n += max(step, 1) {
				root := filepath.Join(t.TempDir(), "store")
				inner := child(t, "work", root, "")
				cmd := exec.Command(strace, "-f", "-qq", "-o", os.DevNull, "-e", "trace="+calls, "-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", calls, n),
					inner.Path, root, "")
				cmd.Env = append(inner.Env, "GOMAXPROCS=1")
				out, err := cmd.CombinedOutput()
				if err == nil {
					require.Greater(t, n, 1, "nothing was hit")
					return // fewer calls than n
				}
				if strings.Contains(string(out), "Operation not permitted") {
					t.Skipf("strace cannot trace here: %s", out)
				}
				var exit *exec.ExitError
				require.ErrorAs(t, err, &exit, "%s", out)
				require.NoError(t, soundChild(t.Context(), root), "killed at call %d", n)
				require.NoError(t, workload(t.Context(), root, 1), "killed at call %d", n)
			}
		})
	}
}

func init() {
	children["torn lease"] = func(ctx context.Context, root, _ string) error {
		signal.Ignore(unix.SIGXFSZ)
		s, err := Open(ctx, root, Options{})
		if err != nil {
			return err
		}
		defer s.Close()
		// One line has 72 bytes.
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 100, Max: 1 << 20}); err != nil {
			return err
		}
		if _, err := s.PutBytes(ctx, "x", []byte("one")); err != nil {
			return err
		}
		if _, err := s.PutBytes(ctx, "x", []byte("two")); !errors.Is(err, ErrNoSpace) {
			return fmt.Errorf("the second line: %w", err)
		}
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}); err != nil {
			return err
		}
		three, err := s.PutBytes(ctx, "x", []byte("three"))
		if err != nil {
			return err
		}
		if _, err := s.GC(ctx, GCOptions{}); err != nil {
			return err
		}
		_, err = get(ctx, s, three)
		return err
	}
}

func TestD02_HalfWrittenLease(t *testing.T) {
	run(t, child(t, "torn lease", filepath.Join(t.TempDir(), "store"), ""))
}
