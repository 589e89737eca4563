package e2e

import (
	"archive/tar"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// deviceSteps make devices as packages do, and look at those of layers below.
const deviceSteps = `  - archive: {source: devices.tar, path: /}
  - run: |
      set -e
      cd /chroot/dev
      umask 022
      busybox mknod -m 666 null c 1 3
      busybox mknod zero- c 1 5 && busybox chown 0:5 zero- && busybox chmod 640 zero- && busybox mv zero- zero
      busybox mknod loop b 7 0
      busybox mkfifo pipe
      busybox mknod gone c 1 9 && busybox rm gone
      ! busybox mknod null c 1 3 2>/dev/null
    env: {PATH: /bin}
  - run: |
      set -e
      cd /chroot/dev
      [ -c null ] && [ -b loop ] && [ -c tty ] && [ -b /old ]
      busybox stat -c '%n %F %a %u:%g %t:%T' null zero loop tty > /list
      busybox mkdir /copy && busybox tar -C / -cf - chroot | busybox tar -C /copy -xf -
      busybox cp -a zero /zero
      busybox chmod 600 /old
      echo nothing > null
      busybox ln loop loop2
      busybox rm loop
    env: {PATH: /bin}
`

// TestSameDevices: devices of layers and of steps are the same in the layers that everybody makes, and nobody can open one.
func TestSameDevices(t *testing.T) {
	digests, trees := map[string]string{}, map[string]map[string]string{}
	build := func(name string, w who, flags ...string) {
		dir := busybox(t, w, "devices", deviceSteps)
		deviceTar(t, filepath.Join(dir, "devices.tar"))
		w.own(t, dir)
		out := filepath.Join(w.home, "out.tar")
		args := append([]string{"build", "--progress", "plain", "--platform", "linux/amd64"}, flags...)
		digests[name] = digestOf(t, ok(t, w.command([]string{"SOURCE_DATE_EPOCH=1700000000"}, append(args, dir)...)))
		ok(t, w.command([]string{"SOURCE_DATE_EPOCH=1700000000"}, append(args, "-o", "type=tar,dest="+out, dir)...))
		tree := readTree(t, out)
		trees[name] = tree
		for name, want := range map[string]string{
			"chroot/dev/null": "3 666 0:0  0 1700000000 1:3 ", "chroot/dev/zero": "3 640 0:5  0 1700000000 1:5 ", "chroot/dev/loop2": "4 644 0:0  0 1700000000 7:0 ",
			"chroot/dev/tty": "3 620 5:6  0 1000000000 5:0 ", "copy/chroot/dev/loop": "4 644 0:0  0 1700000000 7:0 ", "copy/chroot/dev/tty": "3 620 5:6  0 1000000000 5:0 ",
			"zero": "3 640 0:5  0 1700000000 1:5 ", "old": "4 600 0:0  0 1000000000 8:1 ",
		} {
			assert.Contains(t, tree[name], want, "%s: %s", w.name, name)
		}
		assert.NotContains(t, tree, "chroot/dev/gone")
	}
	for _, w := range everybody(t) {
		build(w.name, w)
	}
	if os.Getuid() == 0 {
		build("chroot", root(t), "--executor", "chroot")
	}
	first := everybody(t)[0].name
	for name, d := range digests {
		assert.Equal(t, digests[first], d, "%s: %q", name, different(trees[first], trees[name]))
	}
}

// deviceTar writes an archive with devices in it.
func deviceTar(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	require.NoError(t, err)
	w := tar.NewWriter(f)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "chroot/", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "chroot/dev/", Mode: 0o755},
		{Typeflag: tar.TypeChar, Name: "chroot/dev/tty", Mode: 0o620, Uid: 5, Gid: 6, Devmajor: 5},
		{Typeflag: tar.TypeBlock, Name: "old", Mode: 0o660, Devmajor: 8, Devminor: 1},
	} {
		h.ModTime = time.Unix(1_000_000_000, 0)
		require.NoError(t, w.WriteHeader(&h))
	}
	require.NoError(t, w.Close())
	require.NoError(t, f.Close())
}
