//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// runners are the machines of the matrix.
func runners() []runner {
	var all []runner
	for _, owners := range []string{"ranges", "none"} {
		for _, host := range []bool{true, false} {
			for _, binfmt := range []bool{true, false} {
				for _, place := range places {
					all = append(all, runner{Owners: owners, Host: host, Binfmt: binfmt, Place: place})
				}
			}
		}
	}
	return all
}

// runnerSteps are the commands of the spec and the Dockerfile: what needs other owners, and an emulator for children.
const runnerSteps = `uname -m > /machine && printf '#!/bin/sh\necho script\n' > /s && chmod 4755 /s && /s >> /machine && ` +
	`touch /f && chown 33:34 /f && mkdir /d && chown 35:8 /d && chmod 2775 /d && touch /d/f && ln -s f /d/l && chown -h 40:41 /d/l && mkfifo /d/p`

const runnerSpec = `version: 1
platforms: [linux/amd64, linux/arm64]
from: scratch
steps:
  - archive: {source: "${DEB_ARCH}.tar", path: /}
  - files: [{path: /, source: links}]
  - run: ` + runnerSteps + `
  - {run: id -u > /d/who, user: "35:8"}
`

const runnerDockerfile = `FROM scratch
ARG TARGETARCH
ADD ${TARGETARCH}.tar /
COPY links /
RUN ` + runnerSteps + `
USER 35:8
RUN id -u > /d/who
`

// runnerContext makes the directory that every runner builds, readable by all.
func runnerContext(t *testing.T) string {
	t.Helper()
	tool(t, "mmdebstrap")
	tars, err := busyboxes()
	require.NoError(t, err)
	dir := filepath.Join(shared.dir, "runners")
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "links/bin"), 0o755))
	for _, arch := range []string{"amd64", "arm64"} {
		require.NoError(t, os.Link(filepath.Join(tars, arch+".tar"), filepath.Join(dir, arch+".tar")))
	}
	for _, applet := range []string{"sh", "uname", "chmod", "chown", "touch", "mkdir", "ln", "mkfifo", "id"} {
		require.NoError(t, os.Symlink("busybox", filepath.Join(dir, "links/bin", applet)))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "rootfs.yaml"), []byte(runnerSpec), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(runnerDockerfile), 0o644))
	return dir
}

// TestRunners is the matrix of docs/runners.md: on every runner the spec and the Dockerfile are built for two platforms, and the
// layers are those that root makes. MANIFESTCTL_RUNNERS=update (make runners) has buildah build the Dockerfile there as
// well, and writes the document.
func TestRunners(t *testing.T) {
	if testing.Short() {
		t.Skip("a minute long")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root, to make users and what is around them")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("the foreign platform is arm64 here")
	}
	m := newMatrix(t)
	t.Run("cells", func(t *testing.T) {
		for _, cell := range runners() {
			t.Run(cell.String(), func(t *testing.T) {
				t.Parallel()
				ours, peer := m.build(t, cell), ""
				if m.long && cell.Binfmt {
					peer = m.buildah(t, cell)
				}
				m.note(cell, ours, peer)
			})
		}
	})
	m.withoutEmulators(t)
	if !t.Failed() {
		m.document(t)
	}
}

// matrix gathers what came of the cells.
type matrix struct {
	dir   string
	users map[string]who
	want  map[string]string // file → digest of the index, made by root
	long  bool

	mu    sync.Mutex // guards what follows
	n     int
	ours  map[runner]string
	peers map[runner]string
	peer  string    // the digests of buildah's first success
	none  [2]string // without emulators: with the host's handler, and without
}

func newMatrix(t *testing.T) *matrix {
	m := &matrix{
		dir: runnerContext(t), users: map[string]who{"ranges": ordinary(t, "ranges"), "none": ordinary(t, "single")},
		want: map[string]string{}, ours: map[runner]string{}, peers: map[runner]string{},
		long: os.Getenv(runnersEnv) != "",
	}
	for _, w := range m.users {
		cell := runner{Host: true, Place: placeMasked}
		if r := do(t, cell.on(t, w.other(nil, tool(t, "true")))); r.code != 0 {
			lacks(t, "no runner can be made here (linux 6.7, user namespaces): %s", r.stderr)
		}
	}
	r := root(t)
	for _, file := range runnerFiles {
		m.want[file] = digestOf(t, ok(t, r.command(epoch, m.args(r.home, file)...)))
	}
	return m
}

var runnerFiles = []string{"rootfs.yaml", "Dockerfile"}

// args builds a file to an archive in dir. The times that RUN of a Dockerfile leaves are rewritten: nothing else may differ.
func (m *matrix) args(dir, file string) []string {
	return []string{"build", "--progress", "plain", "-o", "type=oci,rewrite-timestamp=true,dest=" + filepath.Join(dir, file+".tar"), "-f", filepath.Join(m.dir, file), m.dir}
}

// scratch makes a directory of the cell's user, which is removed with all that other ids own in it.
func (m *matrix) scratch(t *testing.T, cell runner) (who, string) {
	t.Helper()
	m.mu.Lock()
	m.n++
	n := m.n
	m.mu.Unlock()
	w := m.users[cell.Owners]
	dir := w.dir(t, fmt.Sprintf("cell-%d", n))
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	return w, dir
}

// build builds both files on a runner and tells by what rungs.
func (m *matrix) build(t *testing.T, cell runner) string {
	t.Helper()
	w, dir := m.scratch(t, cell)
	command := func(args ...string) *exec.Cmd {
		return cell.on(t, w.other(epoch, shared.bin, append([]string{"--root", dir + "/store"}, args...)...))
	}
	for _, file := range runnerFiles {
		r := do(t, command(m.args(dir, file)...))
		if !assert.Zero(t, r.code, "%s: %s", file, r.stderr) {
			continue
		}
		if !assert.Equal(t, m.want[file], digestOf(t, r), file) {
			m.tell(t, dir, file)
		}
	}
	return m.rungs(t, cell, command)
}

// tell says what differs from root's build of file.
func (m *matrix) tell(t *testing.T, dir, file string) {
	t.Helper()
	r := root(t)
	d := do(t, r.command(nil, "diff", "--files", "oci-archive:"+filepath.Join(r.home, file+".tar"), "oci-archive:"+filepath.Join(dir, file+".tar")))
	t.Log(d.stdout, d.stderr)
}

// withoutEmulators builds where no qemu is found: the host's handler is what is left, else it is said before anything is done.
func (m *matrix) withoutEmulators(t *testing.T) {
	for i, host := range []bool{true, false} {
		cell := runner{Owners: "none", Host: host, Binfmt: true, Place: placePlain}
		w, dir := m.scratch(t, cell)
		c := w.other(epoch, shared.bin, append([]string{"--root", dir + "/store"}, m.args(dir, "rootfs.yaml")...)...)
		for j, v := range c.Env {
			if strings.HasPrefix(v, "PATH=") {
				c.Env[j] = "PATH=/nowhere"
			}
		}
		r := do(t, cell.on(t, c))
		if host {
			assert.Zero(t, r.code, r.stderr)
			assert.Equal(t, m.want["rootfs.yaml"], digestOf(t, r))
			m.none[i] = "the same layers, by the host's handler"
			continue
		}
		assert.Equal(t, 8, r.code, r.stderr)
		assert.NotContains(t, r.stderr, "ARCHIVE", "nothing was begun")
		_, text, _ := strings.Cut(strings.TrimSpace(r.stderr), "no emulator")
		first, _, _ := strings.Cut("no emulator"+text, "\n")
		m.none[i] = "exit code 8: `" + first + "`"
	}
}

// rungs asks doctor what a runner allows: that it is the machine that it should be.
func (m *matrix) rungs(t *testing.T, cell runner, command func(args ...string) *exec.Cmd) string {
	t.Helper()
	var report []struct {
		Name string `json:"name"`
		OK   bool   `json:"ok"`
	}
	text := ok(t, command("doctor", "--format", "json")).stdout
	require.NoError(t, json.Unmarshal([]byte(text), &report), text)
	good := map[string]bool{}
	for _, r := range report {
		good[r.Name] = r.OK
	}
	require.True(t, good["user namespace"], text)
	assert.Equal(t, cell.Binfmt, good["emulation: own binfmt_misc"], text)
	assert.Equal(t, cell.Place != placeMasked, good["/proc of its own"], text)
	assert.Equal(t, cell.Owners == "ranges" && cell.Place != placeNNP && cell.Place != placeUnshare && cell.Place != placeBwrap, good["ownership: ranges"], text)
	owners, emulation := "supervisor", "ptrace"
	if good["ownership: ranges"] {
		owners = "ranges"
	}
	if good["emulation: own binfmt_misc"] {
		emulation = "binfmt"
	}
	return owners + ", " + emulation
}

func (m *matrix) note(cell runner, ours, peer string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ours[cell], m.peers[cell] = ours, peer
}

// buildah has Debian's buildah build the Dockerfile on a runner: "ok", or why not. It registers no handlers, so what keeps
// them from being registered is left out: the filter goes by how a file is opened, and buildah opens others in that way.
func (m *matrix) buildah(t *testing.T, cell runner) string {
	t.Helper()
	w, dir := m.scratch(t, cell)
	command := func(args ...string) *exec.Cmd {
		c := w.other(nil, tool(t, "buildah"), append([]string{"--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "vfs"}, args...)...)
		return cell.on(t, c)
	}
	r := do(t, command("build", "--isolation", "chroot", "--timestamp", "0", "--platform", "linux/amd64,linux/arm64", "--manifest", "m",
		"-f", filepath.Join(m.dir, "Dockerfile"), m.dir))
	if r.code != 0 {
		return why(r.stderr)
	}
	got := ok(t, command("manifest", "inspect", "m")).stdout
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.peer == "" {
		m.peer = got
	}
	if got != m.peer {
		return "other layers than in another cell"
	}
	return "ok"
}
