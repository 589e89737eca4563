//go:build linux

package e2e

import (
	"archive/tar"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// container is a way to run a container, and what becomes of a build in it.
type container struct {
	name string
	args []string // of docker run
	runs string   // by what steps run; "" when they do not
	says []string // in the error, when they do not
	// Where they do not: what is said with --executor inplace; none: they run then.
	inplace []string
}

const (
	inChroot = "a chroot"
	inRoot   = "a user namespace, all ids"
	inSingle = "a user namespace, the supervisor"
)

// containers are those of docs/containers.md. The profile and the capabilities are those that docker gives, the engine is Debian's.
var containers = []container{
	{name: "root, docker's defaults", runs: inChroot},
	{name: "root, no-new-privileges", args: []string{"--security-opt", "no-new-privileges"}, runs: inChroot},
	{name: "uid 1000, docker's defaults", args: []string{"--user", "1000"}, says: []string{"--user 0", "seccomp=unconfined", "seccompProfile", "runners.docker", "github"}, inplace: []string{"uid 1000 cannot replace what is in /", "--user 0"}},
	{name: "root, seccomp=unconfined", args: []string{"--security-opt", "seccomp=unconfined"}, runs: inRoot},
	{name: "root, seccomp=unconfined, systempaths=unconfined", args: []string{"--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"}, runs: inRoot},
	{name: "uid 1000, seccomp=unconfined", args: []string{"--security-opt", "seccomp=unconfined", "--user", "1000"}, runs: inSingle},
	{
		name: "uid 1000, cap-drop ALL, no-new-privileges, seccomp=unconfined",
		args: []string{"--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges", "--cap-drop", "ALL", "--user", "1000"}, runs: inSingle,
	},
	{name: "root, cap-drop ALL", args: []string{"--cap-drop", "ALL"}, says: []string{"SYS_CHROOT, MKNOD", "--cap-add CHOWN", "--executor inplace", "seccomp=unconfined"}},
	{
		name: "root, cap-drop ALL, seccomp=unconfined", args: []string{"--cap-drop", "ALL", "--security-opt", "seccomp=unconfined"},
		says: []string{"CAP_SETFCAP", "--user 1000"},
	},
	{
		name: "root, CRI-O's capabilities",
		args: []string{"--cap-drop", "MKNOD", "--cap-drop", "SYS_CHROOT", "--cap-drop", "NET_RAW", "--cap-drop", "AUDIT_WRITE"},
		says: []string{"missing here: SYS_CHROOT, MKNOD", "cri-o, openshift: capabilities.add: [SYS_CHROOT, MKNOD]", "--executor inplace", "seccomp=unconfined"},
	},
}

// containerScript is what runs in each: builds of a spec and a Dockerfile for two platforms, of one without a RUN, of a base that would be
// pulled, and what doctor says. Lines that begin with "==" are for the test.
const containerScript = `
build() { # NAME FILE FLAG...
	name=$1 file=$2; shift 2
	manifestctl --root /store build "$@" --progress plain -o type=oci,rewrite-timestamp=true,dest=/work/out.tar -f /ctx/$file /ctx >/work/out 2>/work/err
	echo "== $name $? $(cat /work/out)"; cat /work/err
}
build spec rootfs.yaml
build dockerfile Dockerfile
build files files.yaml
build pull Pull
build copy Copy
echo "== doctor 0"
manifestctl --root /store doctor
if [ -n "$INPLACE" ]; then
	busybox ls -lAR /bin /usr /etc /tmp >/work/before
	build inplace-spec rootfs.yaml --executor inplace
	build inplace-dockerfile Dockerfile --executor inplace
	build inplace-pull Pull --executor inplace
	busybox ls -lAR /bin /usr /etc /tmp >/work/after
	busybox diff /work/before /work/after && echo "== same $(busybox ls -A / | busybox grep -c manifestctl)"
fi
`

// TestContainers builds in containers of Debian's docker: where steps run the layers are those of this host's root, and where
// they do not that is said, with the settings that would change it, before anything is pulled.
func TestContainers(t *testing.T) {
	if testing.Short() {
		t.Skip("a minute long")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("the foreign platform is arm64 here")
	}
	docker := dockerd(t)
	needs(t, "runc", "qemu-aarch64-static", "busybox")
	m := newMatrix(t)
	for name, text := range map[string]string{
		"files.yaml": "version: 1\nplatforms: [linux/amd64, linux/arm64]\nfrom: scratch\nsteps:\n  - files: [{path: /f, content: x, owner: \"33:34\"}]\n",
		"Pull":       "FROM 127.0.0.1:1/nothing\nRUN true\n",
		"Sleep":      "FROM scratch\nADD amd64.tar /\nRUN [\"/bin/busybox\", \"sleep\", \"3210\"]\n",
		"Reach":      "FROM scratch\nADD amd64.tar /\nRUN [\"/bin/busybox\", \"cat\", \"/proc/1/environ\"]\n",
		"Box":        "FROM scratch\nADD amd64.tar /\n",
		"Mounts":     "FROM scratch\nADD amd64.tar /\nRUN [\"/bin/busybox\", \"mount\", \"-t\", \"tmpfs\", \"none\", \"/bin\"]\n",
		"Moves":      "FROM scratch\nADD amd64.tar /\nRUN [\"/bin/busybox\", \"mv\", \"/etc\", \"/elsewhere\"]\n",
		"Copy":       "FROM 127.0.0.1:1/nothing AS unneeded\nRUN true\nFROM scratch\nCOPY files.yaml /\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o644))
	}
	r := root(t)
	files := digestOf(t, ok(t, r.command(epoch, m.args(r.home, "files.yaml")...)))

	loadImage(t, docker)
	for _, c := range containers {
		t.Run(c.name, func(t *testing.T) {
			store := t.TempDir()
			if strings.HasPrefix(c.name, "uid 1000") {
				require.NoError(t, os.Chown(store, 1000, 1000))
			}
			args := []string{"run", "--rm", "--network", "none", "-e", epoch[0], "-e", "INPLACE=" + map[bool]string{true: "yes"}[c.runs == ""], "-v", m.dir + ":/ctx:ro", "-v", store + ":/store"}
			args = append(append(args, c.args...), "manifestctl", "/bin/busybox", "sh", "-c", containerScript)
			cmd := docker(args...)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			require.NoError(t, err, "%s", out)
			got := sections(string(out))
			assert.Equal(t, "0 "+files, got["files"].head, got["files"].text)
			assert.True(t, strings.HasPrefix(got["copy"].head, "0 sha256:"), got["copy"].text)
			if c.runs == "" {
				for _, name := range []string{"spec", "dockerfile", "pull"} {
					assert.Equal(t, "8", strings.TrimSpace(got[name].head), got[name].text)
					for _, s := range c.says {
						assert.Contains(t, got[name].text, s)
					}
					assert.NotContains(t, got[name].text, "ARCHIVE", "nothing was begun")
					assert.NotContains(t, got[name].text, "connection refused", "nor looked for")
				}
				assert.Contains(t, got["doctor"].text, "no  user namespace: no step can run")
				c.inPlace(t, m, got)
				return
			}
			assert.Equal(t, "0 "+m.want["rootfs.yaml"], got["spec"].head, got["spec"].text)
			assert.Equal(t, "0 "+m.want["Dockerfile"], got["dockerfile"].head, got["dockerfile"].text)
			assert.Equal(t, c.runs == inChroot, strings.Contains(got["spec"].text, "WARNING: no user namespace is to be had here, so steps run in a chroot"), got["spec"].text)
			doctor := map[string]string{
				inChroot: "no  user namespace: steps run in a chroot", inRoot: "ok  user namespace: mode root is used", inSingle: "ok  user namespace: mode single is used",
			}[c.runs]
			assert.Contains(t, got["doctor"].text, doctor)
			left, err := filepath.Glob(store + "/snapshots/*/tmp-*[0-9]")
			require.NoError(t, err)
			assert.Empty(t, left, "nothing is left")
		})
	}
	t.Run("a terminal", func(t *testing.T) { terminalInContainer(t, docker, m.dir) })
	t.Run("killed in place", func(t *testing.T) { killedInPlace(t, docker, m.dir) })
	if !t.Failed() {
		containersDocument(t)
	}
}

// inPlace compares what came of builds with --executor inplace. The container has its own files back either way.
func (c container) inPlace(t *testing.T, m *matrix, got map[string]section) {
	t.Helper()
	assert.Equal(t, "0", strings.TrimSpace(got["same"].head), "nothing is left, and all is back")
	if len(c.inplace) > 0 {
		for _, name := range []string{"inplace-spec", "inplace-dockerfile", "inplace-pull"} {
			assert.Equal(t, "8", strings.TrimSpace(got[name].head), got[name].text)
			for _, s := range c.inplace {
				assert.Contains(t, got[name].text, s)
			}
			assert.NotContains(t, got[name].text, "connection refused", "nothing was looked for")
		}
		return
	}
	assert.Contains(t, got["doctor"].text, "ok  steps in place: possible, with --executor inplace only")
	assert.Equal(t, "0 "+m.want["rootfs.yaml"], got["inplace-spec"].head, got["inplace-spec"].text)
	assert.Equal(t, "0 "+m.want["Dockerfile"], got["inplace-dockerfile"].head, got["inplace-dockerfile"].text)
	assert.Contains(t, got["inplace-spec"].text, "WARNING: --executor inplace: steps run in this container's own root file system")
	assert.Contains(t, got["inplace-pull"].text, "connection refused", "it was begun")
}

// terminalInContainer runs a program on a terminal of its own, where that is one of the container's devpts.
func terminalInContainer(t *testing.T, docker func(args ...string) *exec.Cmd, dir string) {
	for executor, args := range map[string][]string{"chroot": nil, "inplace": {"--cap-drop", "ALL"}} {
		t.Run(executor, func(t *testing.T) {
			args := append([]string{"run", "--rm", "-t", "--network", "none", "-v", dir + ":/ctx:ro", "-v", t.TempDir() + ":/store"}, args...)
			out, err := output(docker(append(args, "manifestctl", "/bin/busybox", "sh", "-c", "manifestctl --root /store build -q -t box:1 -f /ctx/Box /ctx && "+
				"manifestctl --root /store run --executor "+executor+` store:box:1 /bin/busybox sh -c 'a=$(/bin/busybox tty); echo at $a; exec 3<>$a && echo opened >&3; exit 5'`)...))
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, "%s", out)
			assert.Equal(t, 5, exit.ExitCode(), "%s", out)
			assert.Regexp(t, `at /dev/pts/[1-9]\d*\r\nopened\r\n$`, string(out))
		})
	}
}

// section is what came of one command in a container.
type section struct{ head, text string }

func sections(out string) map[string]section {
	all := map[string]section{}
	name := ""
	for line := range strings.Lines(out) {
		if head, ok := strings.CutPrefix(line, "== "); ok {
			var rest string
			name, rest, _ = strings.Cut(strings.TrimSpace(head), " ")
			all[name] = section{head: rest}
			continue
		}
		s := all[name]
		s.text += line
		all[name] = s
	}
	return all
}

// loadImage makes the image manifestctl in a docker.
func loadImage(t *testing.T, docker func(args ...string) *exec.Cmd) {
	t.Helper()
	load := docker("import", "-", "manifestctl")
	image, w := io.Pipe()
	go func() { w.CloseWithError(containerImage(w)) }()
	load.Stdin = image
	must(t, load)
}

// containerImage writes the root file system of the image: the program, an emulator, a shell.
func containerImage(out io.Writer) error {
	w := tar.NewWriter(out)
	for _, d := range []string{"bin", "usr", "usr/bin", "work", "tmp"} {
		mode := int64(0o755)
		if d == "work" || d == "tmp" {
			mode = 0o1777
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d + "/", Mode: mode}); err != nil {
			return err
		}
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/cat", Linkname: "busybox"}); err != nil {
		return err
	}
	for name, from := range map[string]string{"bin/manifestctl": shared.bin, "usr/bin/qemu-aarch64-static": "qemu-aarch64-static", "bin/busybox": "busybox"} {
		path, err := exec.LookPath(from)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(data))}); err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
	return w.Close()
}

// containersDocument writes docs/containers.md, or compares it.
func containersDocument(t *testing.T) {
	t.Helper()
	var b bytes.Buffer
	b.WriteString(containersHead)
	b.WriteString("| container | steps run in | without: the message names | with --executor inplace |\n|---|---|---|---|\n")
	for _, c := range containers {
		runs, says, inplace := c.runs, "", ""
		if runs == "" {
			runs = "nothing; files and COPY build"
			says, inplace = "`"+strings.Join(c.says, "`, `")+"`", "the root file system of the container"
			if len(c.inplace) > 0 {
				inplace = "nothing: `" + strings.Join(c.inplace, "`, `") + "`"
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", c.name, runs, cmp.Or(says, "-"), cmp.Or(inplace, "-"))
	}
	const name = "../../docs/containers.md"
	if os.Getenv(runnersEnv) == "update" {
		require.NoError(t, os.WriteFile(name, b.Bytes(), 0o644))
		return
	}
	have, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, string(have), b.String(), "make runners writes it")
}

const containersHead = `# Inside containers

Written by ` + "`make runners`" + ` (TestContainers in internal/e2e), and compared by CI: Debian's docker runs each container of the table, with docker's own
seccomp profile and capabilities where the row says nothing else, from an image that holds nothing but the program, qemu-aarch64-static and busybox. Each
builds the spec and the Dockerfile of [runners.md](runners.md) for linux/amd64 and linux/arm64. Where steps run, the index has the digest that it has when
root of the host builds. Where they do not, the build ends with exit code 8 before a registry is asked for anything, and what has no RUN builds as everywhere.

- *a chroot*: no user namespace is to be had. A step changes a tree of its own in place; ` + "`ptrace`" + ` executes foreign programs; Landlock, fewer capabilities and
  no_new_privs keep it in; ` + "`network: none`" + ` means that it gets no sockets but unix ones. It sees the network, the host name and the process numbers of the container, and
  set-uid programs gain nothing. The build says all this. Terminals (` + "`run`, `--on-error shell`" + `, and what a step makes itself) are the container's own, of which it gets no others.
- *the root file system of the container*: when not even chroot is allowed, and it is asked for (` + "`--executor inplace`" + `, never by itself). While a step runs, all that
  the container has in / lies aside, and the step's tree is in its place; mount points stay, and the store. Afterwards, and when a process is killed, the container has
  its own files back. [security.md](security.md) says what that gives up.
- *a user namespace*: as in runners.md, although ` + "`/proc`" + ` is masked. The store must not be on the container's overlay: a volume, an emptyDir.

`
