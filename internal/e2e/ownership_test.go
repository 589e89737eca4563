package e2e

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// debianTars are packages extracted by mmdebstrap, made once for all tests.
var debianTars struct {
	sync.Mutex
	dir string
}

// debianTar is the tar of extracted packages for an architecture (Debian's name).
func debianTar(t *testing.T, arch string) string {
	t.Helper()
	tool(t, "mmdebstrap")
	debianTars.Lock()
	defer debianTars.Unlock()
	if debianTars.dir == "" {
		dir, err := os.MkdirTemp(shared.dir, "debian-")
		require.NoError(t, err)
		require.NoError(t, os.Chmod(dir, 0o755))
		debianTars.dir = dir
	}
	must(t, exec.Command("../../scripts/debian-base.sh", debianTars.dir, arch))
	return filepath.Join(debianTars.dir, "rootfs-"+arch+".tar")
}

// differsByItself are files whose bytes differ between two builds by root: the clock's time is in them, numbers of
// inodes, or random keys. Everything else must be the same.
var differsByItself = []string{
	"var/log/**", "var/cache/ldconfig/aux-cache", "var/cache/apt/*.bin", "var/lib/apt/**", "var/cache/man/**",
	"etc/machine-id", "var/lib/dbus/machine-id", "etc/ssh/ssh_host_*", "etc/ssl/certs/**", "etc/ssl/private/ssl-cert-snakeoil.key",
	"var/lib/postgresql/**", "etc/postgresql/**", "etc/postfix/**", "var/lib/postfix/**",
	"var/cache/debconf/*", "etc/mailname", "etc/aliases.db",
}

func excused(name string) bool {
	for _, p := range differsByItself {
		if dir, ok := strings.CutSuffix(p, "/**"); ok && strings.HasPrefix(name, dir+"/") {
			return true
		}
		if ok, _ := path.Match(p, name); ok {
			return true
		}
	}
	return false
}

// packages are sets that exercise owners: users and groups made by maintainer scripts, set-uid and set-gid programs,
// file capabilities, chown, su.
var packages = map[string]string{
	"small": "iputils-ping openssh-client cron",
	"P1":    "iputils-ping openssh-server nginx-light dbus sudo man-db postfix redis-server",
	"P2":    "postgresql",
	"P3":    "cron",
	"P4":    "iputils-ping openssh-server sudo python3-minimal",
	"P5":    "dbus",
}

// TestSameOwners: a Debian root file system, configured and filled by maintainer scripts, has byte-identical layers
// whether root, a user with subuid ranges or a user with a single id builds it. MANIFESTCTL_OWNERSHIP=1 (make ownership)
// takes the long sets of packages, on amd64 and under emulation.
func TestSameOwners(t *testing.T) {
	if testing.Short() {
		t.Skip("minutes long: dpkg and apt")
	}
	if os.Getuid() != 0 || runtime.GOARCH != "amd64" {
		t.Skip("needs root, to be three users, and amd64")
	}
	type set struct{ arch, name string }
	sets := []set{{"amd64", "small"}}
	if os.Getenv("MANIFESTCTL_OWNERSHIP") != "" {
		sets = []set{{"amd64", "P1"}, {"amd64", "P2"}, {"arm64", "P3"}, {"arm64", "P4"}, {"arm64", "P5"}}
	}
	for _, s := range sets {
		t.Run(s.arch+" "+s.name, func(t *testing.T) {
			tarball := debianTar(t, s.arch)
			digests, trees := map[string]string{}, map[string]map[string]string{}
			builders := everybody(t)
			if s.name != "small" { // root twice: what differs then, has to be excused by name, and nothing else may be
				again := root(t)
				again.name = "root again"
				builders = append(builders, again)
			}
			for _, w := range builders {
				dir := w.dir(t, "debian-"+s.name)
				require.NoError(t, os.Link(tarball, filepath.Join(dir, "rootfs.tar")))
				require.NoError(t, os.WriteFile(filepath.Join(dir, "rootfs.yaml"), []byte(sameOwnersSpec(s.arch, s.name)), 0o644))
				out := filepath.Join(w.home, "out.tar")
				r := ok(t, w.command([]string{"SOURCE_DATE_EPOCH=1700000000"}, "build", "--progress", "plain", "-o", "type=tar,dest="+out, dir))
				digests[w.name] = digestOf(t, r)
				trees[w.name] = readTree(t, out)
				assert.NotContains(t, r.stderr, "initdb: error")
				t.Logf("%s: %s\n%s", w.name, digests[w.name], lastLines(r.stderr, 3))
				require.NoError(t, os.Remove(out))
			}
			want := trees["root"]
			require.Greater(t, len(want), 3000)
			for name, tree := range trees {
				for _, line := range different(want, tree) {
					t.Errorf("root and %s: %s", name, line)
				}
			}
			if again, ok := trees["root again"]; ok {
				var names []string
				for name, line := range want {
					if again[name] != line {
						names = append(names, name)
						assert.True(t, excused(name), "two builds by root differ in %s, which is not listed", name)
					}
				}
				slices.Sort(names)
				t.Logf("two builds by root differ in %d files: %s", len(names), strings.Join(names, " "))
			}
			if s.name == "small" { // nothing of what is excused is in it
				assert.Equal(t, digests["root"], digests["ranges"])
				assert.Equal(t, digests["root"], digests["single"])
			}
			// It is no empty truth: these are there, and not root's.
			owners := map[string]bool{}
			for _, line := range want {
				owners[strings.Fields(line)[2]] = true
			}
			assert.Greater(t, len(owners), 4, "%v", owners)
		})
	}
}

func sameOwnersSpec(arch, set string) string {
	s := `version: 1
platforms: [linux/` + arch + `]
from: scratch
steps:
  - archive: {source: rootfs.tar, path: /}
  - run: |
      set -e
      dpkg --force-depends --install /var/cache/apt/archives/*.deb >/dev/null
      rm -f /var/cache/apt/archives/*.deb
      rm -f /var/log/*.log /var/cache/ldconfig/aux-cache
    env: {DEBIAN_FRONTEND: noninteractive, DEBCONF_NONINTERACTIVE_SEEN: "true"}
  - run: |
      set -e
      apt-get update >/dev/null
      apt-get install -y --no-install-recommends ` + packages[set] + ` >/dev/null
      rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
`
	if set == "small" {
		s += `      rm -rf /var/log/apt /var/log/*.log /var/cache/ldconfig/aux-cache
      rm -f /var/cache/debconf/*-old
`
	}
	return s + `    network: host
    env: {DEBIAN_FRONTEND: noninteractive}
  - run: |
      set -e
      groupadd -g 4000 team
      useradd -m -u 4001 -g team worker
      install -d -m 2775 -o worker -g team /srv/team
      su worker -c 'umask 002; cd /srv/team && mkdir -p a/b && echo x > a/b/c && ln -s b a/l && cp -a a copy && mkfifo p && install -m 4755 /bin/true suid'
      cp -a /srv/team /srv/again
      tar -C /srv -cf - team | tar -C /tmp -xf - && mv /tmp/team /srv/tarred
      chown -h 33:34 /srv/again/a/l && mv /srv/again/a /srv/again/moved
      [ "$(stat -c %U:%G /srv/team/a/b/c)" = worker:team ]
      [ "$(stat -c %u:%g /srv/again/moved/l)" = 33:34 ]
      [ "$(su worker -c 'id -un')" = worker ]
      rm -f /var/log/*.log /var/log/lastlog /var/log/faillog
  - run: id -u > /srv/team/who && mkdir -m 700 /srv/team/mine && touch /srv/team/mine/f
    user: "4001:4000"
`
}

// readTree lists a tar: name → type, mode, owner, link, size, time, device, attributes and the digest of the content.
func readTree(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	out := map[string]string{}
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		sum := sha256.New()
		_, err = io.Copy(sum, tr)
		require.NoError(t, err)
		name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
		out[name] = fmt.Sprintf("%c %o %d:%d %s %d %d %d:%d %q %x", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, h.Size, h.ModTime.Unix(),
			h.Devmajor, h.Devminor, slices.Sorted(maps.Keys(h.PAXRecords)), sum.Sum(nil)[:8])
	}
}

// different compares what is not excused; of excused files the type, mode and owner, and of logs only where they are on both
// sides.
func different(a, b map[string]string) []string {
	var out []string
	short := func(name, line string) string {
		if f := strings.Fields(line); excused(name) && len(f) > 2 {
			return strings.Join(f[:3], " ")
		}
		return line
	}
	names := map[string]bool{}
	for n := range a {
		names[n] = true
	}
	for n := range b {
		names[n] = true
	}
	for _, n := range slices.Sorted(maps.Keys(names)) {
		if x, y := short(n, a[n]), short(n, b[n]); x != y && (a[n] != "" && b[n] != "" || !strings.HasPrefix(n, "var/log/") || !excused(n)) {
			out = append(out, fmt.Sprintf("%s:\n\t%s\n\t%s", n, x, y))
		}
	}
	return out
}

// TestOwners: what a step gives to others is theirs in the layer, for everybody who builds it.
func TestOwners(t *testing.T) {
	digests := map[string]string{}
	for _, w := range everybody(t) {
		dir := busybox(t, w, "chown", "  - run: touch /f && chown 33:34 /f && mkdir /d && chown 35:8 /d && chmod 2775 /d && touch /d/f && ln -s f /d/l && chown -h 40:41 /d/l && mkfifo /d/p\n"+
			"  - run: touch /f2 && stat -c %u:%g /f > /f2 && mv /d/l /d/m && rm /d/p\n"+
			"  - {run: id -u > /d/who, user: '35'}\n")
		out := filepath.Join(w.home, "out.tar")
		r := ok(t, w.command([]string{"SOURCE_DATE_EPOCH=1700000000"}, "build", "--platform", "linux/amd64,linux/arm64", dir))
		digests[w.name] = digestOf(t, r)
		ok(t, w.command(nil, "build", "--platform", "linux/amd64", "-o", "type=tar,dest="+out, dir))
		tree := readTree(t, out)
		assert.Regexp(t, `^0 644 33:34 `, tree["f"])
		assert.Regexp(t, `^5 2775 35:8 `, tree["d"])
		assert.Regexp(t, `^0 644 0:8 `, tree["d/f"])
		assert.Regexp(t, `^2 777 40:41 f `, tree["d/m"])
		assert.Regexp(t, `^0 644 35:8 `, tree["d/who"])
	}
	for name, d := range digests {
		assert.Equal(t, digests[slices.Sorted(maps.Keys(digests))[0]], d, name)
	}
}

// TestEmulationRungs: by whatever means a foreign step runs, its layer is the same.
func TestEmulationRungs(t *testing.T) {
	digests := map[string]string{}
	for _, w := range everybody(t) {
		for _, how := range []string{"private", "ptrace"} {
			if how == "ptrace" && runtime.GOARCH != "amd64" {
				continue
			}
			dir := busybox(t, w, how, "  - run: uname -m > /m && printf '#!/bin/sh\\necho from a script $@\\n' > /s && chmod +x /s && /s a b >> /m && chown 33:34 /m\n")
			r := ok(t, w.command([]string{"SOURCE_DATE_EPOCH=1700000000"}, "build", "--no-cache", "--emulation", how, "--platform", "linux/arm64", dir))
			digests[w.name+" "+how] = digestOf(t, r)
		}
	}
	for name, d := range digests {
		assert.Equal(t, digests[slices.Sorted(maps.Keys(digests))[0]], d, name)
	}
}
