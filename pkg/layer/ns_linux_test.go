package layer

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const inNamespace = "LAYER_TEST_NAMESPACE"

// asRootOfNamespace runs the rest of the calling test in a child that is root of its own user and mount
// namespace, with ids many ids (more than one takes real root). It reports whether this is the child.
func asRootOfNamespace(t *testing.T, ids int) bool {
	t.Helper()
	if os.Getenv(inNamespace) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v")
	tmp := t.TempDir()
	cmd.Env = append(os.Environ(), inNamespace+"=1", "TMPDIR="+tmp)
	hostUID, hostGID := os.Geteuid(), os.Getegid()
	if ids > 1 {
		hostUID, hostGID = 100_000, 100_000
		require.NoError(t, os.Chmod(filepath.Dir(tmp), 0o755))
		require.NoError(t, os.Chown(tmp, hostUID, hostGID))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:                 unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: hostUID, Size: ids}},
		GidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: hostGID, Size: ids}},
		GidMappingsEnableSetgroups: ids > 1,
		Credential:                 &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("this machine allows no user namespace: %v", err)
	}
	assert.NoError(t, err, "%s", out)
	return false
}

// applied unpacks a chain for overlayfs and returns its directories, top first.
func applied(t *testing.T, own Ownership, layers ...[]byte) []string {
	t.Helper()
	var dirs []string
	for i, l := range layers {
		var b bytes.Buffer
		require.NoError(t, WriteMembers(context.Background(), &b, mustView(t, layers[:i]...), Missing(readTOC(t, l))))
		b.Write(l)
		dir := filepath.Join(t.TempDir(), "layer"+strconv.Itoa(i))
		require.NoError(t, os.Mkdir(dir, 0o700))
		require.NoError(t, Apply(context.Background(), dir, &b, ApplyOptions{Ownership: own, Overlay: true}))
		dirs = append([]string{dir}, dirs...)
	}
	return dirs
}

// overlay mounts lowers, top first, with a fresh upper.
func overlay(t *testing.T, lowers []string) (merged, upper string) {
	t.Helper()
	top := t.TempDir()
	upper, merged = filepath.Join(top, "upper"), filepath.Join(top, "merged")
	work := filepath.Join(top, "work")
	for _, d := range []string{upper, work, merged} {
		require.NoError(t, os.Mkdir(d, 0o755))
	}
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(fs)
	for _, l := range lowers {
		require.NoError(t, unix.FsconfigSetString(fs, "lowerdir+", l))
	}
	require.NoError(t, unix.FsconfigSetString(fs, "upperdir", upper))
	require.NoError(t, unix.FsconfigSetString(fs, "workdir", work))
	require.NoError(t, unix.FsconfigSetFlag(fs, "userxattr"))
	require.NoError(t, unix.FsconfigCreate(fs))
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(mnt)
	require.NoError(t, unix.MoveMount(mnt, "", unix.AT_FDCWD, merged, unix.MOVE_MOUNT_F_EMPTY_PATH))
	t.Cleanup(func() {
		unix.Unmount(merged, unix.MNT_DETACH)
		RemoveAll(work)
		RemoveAll(upper)
	})
	return merged, upper
}

// TestOverlay holds what the kernel makes of unpacked layers, and of changes to them, to the View.
func TestOverlay(t *testing.T) {
	if !asRootOfNamespace(t, 1) {
		return
	}
	checkOverlay(t, OwnXattr)
}

func TestOverlayIDs(t *testing.T) {
	if os.Getenv(inNamespace) == "" && os.Geteuid() != 0 {
		t.Skip("mapping several ids takes root")
	}
	if !asRootOfNamespace(t, 65536) {
		return
	}
	checkOverlay(t, OwnIDs)
	// Ids that the namespace does not have, and devices that it may not make, are recorded.
	b := archive(t, file("f", "").owned(70000, 1), dir("d").owned(1, 70000), symlink("l", "x").owned(70000, 70000), char("null", 1, 3).owned(3, 4).moded(0o666), char("far", 5, 1).owned(70000, 0))
	dir := filepath.Join(t.TempDir(), "tree")
	require.NoError(t, os.Mkdir(dir, 0o755))
	warned := map[string]bool{}
	require.NoError(t, Apply(t.Context(), dir, bytes.NewReader(b), ApplyOptions{Ownership: OwnIDs, Warn: func(name, _ string) { warned[name] = true }}))
	var back bytes.Buffer
	require.NoError(t, Diff(t.Context(), dir, &back, DiffOptions{Ownership: OwnIDs}))
	assert.Equal(t, list(t, mustView(t, b)), list(t, mustView(t, back.Bytes())))
	assert.Len(t, warned, 5)
}

func checkOverlay(t *testing.T, own Ownership) {
	layers := [][]byte{
		archive(t, dir(".").moded(0o755), dir("a").moded(0o700).owned(3, 4).at(9), file("a/x", "1"), file("a/y", "2").owned(5, 5), dir("b"), file("b/x", "3"), dir("tmp").moded(0o1777),
			symlink("l", "a"), dir("c"), file("c/1", ""), file("c/2", ""), file("z", "4").xattr("user.overlay.opaque", "y"), char("n", 0, 0), char("null", 1, 3), fifo("p"), dir("locked").moded(-1), file("locked/f", "5").moded(-1)),
		archive(t, file("a/.wh.x", ""), file("l/new", "n"), file(".wh.b", ""), dir("b").moded(0o711), file("b/other", "o"), file("c/.wh..wh..opq", ""), file("c/3", ""), hardlink("a/link", "a/y"), file("tmp/t", "t")),
		archive(t, file(".wh.z", ""), dir("d").xattr("user.overlay.opaque", "y"), file("d/e/f", "deep")),
		archive(t, file("top", "1"), file(".wh..wh..opq", ""), file("a/only", "2")),
	}
	// Inside the mount what is escaped on disk looks like overlayfs's own and is not read back.
	escaped := regexp.MustCompile(` user\.overlay\.\w+="[^"]*"`)
	lines := func(v *View) []string {
		out := listLinked(t, v)
		for i := range out {
			out[i] = escaped.ReplaceAllString(out[i], "")
		}
		return out
	}
	readBack := func(dir string) *View {
		var b bytes.Buffer
		require.NoError(t, Diff(context.Background(), dir, &b, DiffOptions{Ownership: own}))
		return mustView(t, b.Bytes())
	}
	for n := 1; n <= len(layers); n++ {
		merged, _ := overlay(t, applied(t, own, layers[:n]...))
		assert.Equal(t, lines(mustView(t, layers[:n]...)), lines(readBack(merged)), "%d layers", n)
	}

	// What a step changes.
	base := layers[:3]
	merged, up := overlay(t, applied(t, own, base...))
	at := func(name string) string { return filepath.Join(merged, name) }
	require.NoError(t, os.RemoveAll(at("a")))
	require.NoError(t, os.Mkdir(at("a"), 0o750))
	require.NoError(t, os.WriteFile(at("a/fresh"), []byte("f"), 0o644))
	require.NoError(t, os.RemoveAll(at("c")))
	require.NoError(t, os.WriteFile(at("c"), []byte("a file now"), 0o644))
	require.NoError(t, os.Remove(at("b/other")))
	require.NoError(t, os.Remove(at("p")))
	require.NoError(t, os.Link(at("null"), at("null2")))
	require.NoError(t, os.Chmod(at("locked/f"), 0o444))
	require.NoError(t, unix.Setxattr(at("d/e"), "user.overlay.forged", []byte("/etc"), 0))
	require.NoError(t, unix.Setxattr(at("d/e"), "user.mine", []byte("1"), 0))
	require.NoError(t, unix.Setxattr(at("d/e/f"), xattrCapability, []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	require.NoError(t, os.Rename(at("tmp/t"), at("tmp/moved")))
	require.NoError(t, os.Chtimes(at("tmp/moved"), time.Unix(5, 0), time.Unix(5, 0)))
	want := lines(readBack(merged))
	require.NoError(t, unix.Unmount(merged, 0))
	var step bytes.Buffer
	require.NoError(t, Diff(context.Background(), up, &step, DiffOptions{Ownership: own}))
	assert.Equal(t, want, lines(mustView(t, append(base, step.Bytes())...)))
	_, err := checkUnpackedAs(t, own, append(base, step.Bytes())...)
	require.NoError(t, err)
	found := false
	for _, e := range readTOC(t, step.Bytes()).Entries {
		if e.Name == "d/e/f" {
			found = true
			assert.Len(t, e.Xattrs[xattrCapability], capV2Size, "as root would write it")
		}
		if e.Name == "d/e" {
			assert.Equal(t, map[string]string{"user.overlay.forged": "/etc", "user.mine": "1"}, e.Xattrs)
		}
	}
	assert.True(t, found)
}

// checkUnpackedAs unpacks layers over each other and compares with the View.
func checkUnpackedAs(t *testing.T, own Ownership, layers ...[]byte) (string, error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	require.NoError(t, os.Mkdir(dir, 0o755))
	for _, l := range layers {
		if err := Apply(context.Background(), dir, bytes.NewReader(l), ApplyOptions{Ownership: own}); err != nil {
			return dir, err
		}
	}
	var b bytes.Buffer
	require.NoError(t, Diff(context.Background(), dir, &b, DiffOptions{Ownership: own}))
	assert.Equal(t, list(t, mustView(t, layers...)), list(t, mustView(t, b.Bytes())))
	return dir, nil
}

// TestFull_A30 runs out of inodes and of space.
func TestFull_A30(t *testing.T) {
	if !asRootOfNamespace(t, 1) {
		return
	}
	var members []member
	for i := range 100 {
		members = append(members, file("d/f"+strconv.Itoa(i), "0123456789"))
	}
	for text, tc := range map[string]struct {
		options string
		layer   []byte
	}{
		"no inodes left": {"size=4m,nr_inodes=40", archive(t, members...)},
		"no space left":  {"size=64k,nr_inodes=400", archive(t, file("big", string(make([]byte, 1<<20))))},
	} {
		mnt := t.TempDir()
		require.NoError(t, unix.Mount("tmpfs", mnt, "tmpfs", 0, tc.options))
		dir := filepath.Join(mnt, "tree")
		require.NoError(t, os.Mkdir(dir, 0o755))
		err := Apply(t.Context(), dir, bytes.NewReader(tc.layer), ApplyOptions{Ownership: OwnXattr})
		require.ErrorIs(t, err, unix.ENOSPC)
		assert.ErrorContains(t, err, text)
		assert.ErrorContains(t, err, dir)
		require.NoError(t, RemoveAll(dir))
		assert.NoDirExists(t, dir)
		require.NoError(t, unix.Unmount(mnt, 0))
	}
}
