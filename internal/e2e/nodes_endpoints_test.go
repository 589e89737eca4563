package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/oracle"
)

// TestNodeEndpoints builds over every way to a daemon that there is, as an ordinary user where that one may.
func TestNodeEndpoints(t *testing.T) {
	bin := buildkitHere(t)
	buildctl := filepath.Join(shared.dir, "buildctl") // where every user may run it
	data, err := os.ReadFile(filepath.Join(bin, "buildctl"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(buildctl, data, 0o755))
	t.Run("sockets", func(t *testing.T) {
		w := ordinary(t, "ranges")
		socket := buildkitSocket(t, bin, w)
		t.Run("unix", func(t *testing.T) { endpointUnix(t, w, socket) })
		t.Run("ssh", func(t *testing.T) { endpointSSH(t, w, buildctl, socket) })
		t.Run("kube-pod", func(t *testing.T) { endpointKube(t, w, buildctl, socket) })
		t.Run("stopped", func(t *testing.T) { endpointStopped(t, w, buildctl, socket) })
	})
	if os.Getenv("MANIFESTCTL_NODES") == "short" {
		t.Log("left to make nodes: docker-container and podman-container")
		return
	}
	t.Run("docker-container", func(t *testing.T) { endpointDocker(t, bin) })
	t.Run("podman-container", func(t *testing.T) { endpointPodman(t, bin) })
}

// buildkitSocket starts a daemon on a socket that w's group may use, as administrators set it up.
func buildkitSocket(t *testing.T, bin string, w who) string {
	t.Helper()
	at := shortDir(t)
	require.NoError(t, os.Chmod(at, 0o755))
	socket, state := filepath.Join(at, "s"), t.TempDir()
	d, err := oracle.StartWith(t.Context(), bin, state, oracle.Options{
		Addr: "unix://" + socket, Args: []string{"--group", strconv.Itoa(int(w.cred.Gid))},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = d.Close()
		unmountBelow(t, state)
	})
	return socket
}

// buildOn builds two platforms of one processor on the builder called name, and looks into the result.
func buildOn(t *testing.T, w who, env []string, name string) {
	t.Helper()
	dir := w.dir(t, "on-"+name)
	box, err := os.ReadFile(tool(t, "busybox"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "busybox"), box, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(`FROM scratch
COPY busybox /bin/sh
ARG TARGETARCH
RUN --mount=type=secret,id=s read a < /run/secrets/s; echo "$TARGETARCH $a" > /made
`), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(w.home, "s"), []byte("hush"), 0o644))
	w.own(t, dir)
	out := filepath.Join(w.home, "out-"+name)
	r := ok(t, w.command(env, "build", "--progress=plain", "--builder", name, "--platform", "linux/amd64,linux/386", "--verify=off",
		"--secret", "id=s,src="+filepath.Join(w.home, "s"), "-o", "type=local,dest="+out, dir))
	assert.Regexp(t, `\[`+name+`0 [^]]*2/2\] RUN`, r.stderr, "it is the node that did it")
	for _, arch := range []string{"amd64", "386"} {
		text, err := os.ReadFile(filepath.Join(out, "linux_"+arch, "made"))
		require.NoError(t, err)
		assert.Equal(t, arch+" hush\n", string(text))
	}
}

func endpointUnix(t *testing.T, w who, socket string) {
	ok(t, w.command(nil, "builder", "create", "--name", "unix", "--bootstrap", "unix://"+socket))
	buildOn(t, w, nil, "unix")
	single := ordinary(t, "single") // is not in the group
	ok(t, single.command(nil, "builder", "create", "--name", "unix", "unix://"+socket))
	r := do(t, single.command(nil, "build", "--builder", "unix", single.dir(t, "empty")))
	assert.Equal(t, 2, r.code, "there is nothing to build: %s", r.stderr)
	r = do(t, single.command(nil, "builder", "inspect", "--bootstrap", "unix"))
	assert.Equal(t, 1, r.code, r.stderr)
	assert.Contains(t, r.stderr, "permission denied")
}

// path is a directory with programs, before the rest of $PATH.
func programs(t *testing.T, w who, scripts map[string]string) string {
	t.Helper()
	dir := w.dir(t, "bin")
	for name, text := range scripts {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o755))
	}
	w.own(t, dir)
	return "PATH=" + dir + ":" + os.Getenv("PATH")
}

// endpointSSH goes through Debian's OpenSSH: a server that the user w runs, with keys of its own.
func endpointSSH(t *testing.T, w who, buildctl, socket string) {
	needs(t, "ssh", "ssh-keygen")
	sshd := "/usr/sbin/sshd" // it is to be started by its full name
	if _, err := os.Stat(sshd); err != nil {
		lacks(t, "openssh-server is not installed (Debian has it)")
	}
	dir := w.dir(t, "ssh")
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	for _, name := range []string{"host", "key"} {
		must(t, exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, name)))
	}
	public, err := os.ReadFile(filepath.Join(dir, "key.pub"))
	require.NoError(t, err)
	host, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	require.NoError(t, err)
	far := w.dir(t, "far") // $PATH over there
	require.NoError(t, os.Symlink(buildctl, filepath.Join(far, "buildctl")))
	config := file("sshd_config", fmt.Sprintf(`HostKey %s/host
AuthorizedKeysFile %s
PidFile none
PasswordAuthentication no
UsePAM no
StrictModes no
SetEnv PATH=%s:/usr/bin:/bin
`, dir, file("authorized", string(public)), far))
	port := serveEach(t, func() *exec.Cmd { return w.other(nil, sshd, "-i", "-e", "-f", config) })
	known := file("known", "[127.0.0.1]:"+port+" "+string(host))
	client := file("config", fmt.Sprintf("IdentityFile %s/key\nIdentitiesOnly yes\nUserKnownHostsFile %s\nStrictHostKeyChecking yes\nBatchMode yes\n", dir, known))
	w.own(t, dir)

	u, err := user.LookupId(strconv.Itoa(int(w.cred.Uid)))
	require.NoError(t, err)
	// What the user's ~/.ssh/config says, who has none that a test may write.
	env := []string{programs(t, w, map[string]string{"ssh": "exec " + tool(t, "ssh") + " -F " + client + ` "$@"` + "\n"})}
	url := "ssh://" + u.Username + "@127.0.0.1:" + port
	ok(t, w.command(env, "builder", "create", "--name", "ssh", "--bootstrap", url+socket))
	buildOn(t, w, env, "ssh")

	// What is wrong over there is said, in its words and ours.
	ok(t, w.command(env, "builder", "create", "--name", "nosocket", url+"/nowhere"))
	r := do(t, w.command(env, "builder", "inspect", "--bootstrap", "nosocket"))
	assert.Equal(t, 1, r.code, r.stderr)
	assert.Contains(t, r.stderr, "/nowhere")
	require.NoError(t, os.Remove(filepath.Join(far, "buildctl")))
	r = do(t, w.command(env, "builder", "inspect", "--bootstrap", "ssh"))
	assert.Equal(t, 1, r.code, r.stderr)
	assert.Contains(t, r.stderr, "hint: what is run there is `buildctl dial-stdio`")
	assert.NotContains(t, r.stderr, "Docker 18.09")
	require.NoError(t, os.WriteFile(known, nil, 0o600))
	r = do(t, w.command(env, "builder", "inspect", "--bootstrap", "ssh"))
	assert.Equal(t, 1, r.code, r.stderr)
	assert.Contains(t, r.stderr, "Host key verification failed")
}

// serveEach listens on a free port of the loopback and starts a command for each connection, which it talks to: as inetd does.
func serveEach(t *testing.T, command func() *exec.Cmd) (port string) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	var running sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	running.Go(func() {
		for {
			conn, err := l.AcceptTCP()
			if err != nil {
				return
			}
			f, err := conn.File()
			_ = conn.Close()
			if err != nil {
				return
			}
			running.Go(func() {
				defer f.Close()
				c := command()
				c.Stdin, c.Stdout, c.Stderr = f, f, log
				if c.Start() != nil {
					return
				}
				kill := context.AfterFunc(ctx, func() { _ = c.Process.Kill() })
				_ = c.Wait()
				kill()
			})
		}
	})
	t.Cleanup(func() {
		stop()
		_ = l.Close()
		running.Wait()
		_ = log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("it said:\n%s", text)
		}
	})
	_, port, err = net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	return port
}

// endpointKube has no cluster, but a kubectl that does what its exec does: it starts the command in the "pod".
func endpointKube(t *testing.T, w who, buildctl, socket string) {
	log := filepath.Join(w.home, "kubectl.log")
	env := []string{programs(t, w, map[string]string{"kubectl": fmt.Sprintf(`echo "$*" >> %s
for a; do shift; [ "$a" = -- ] && break; done
[ "$1" = buildctl ] || exit 1
shift
exec %s --addr unix://%s "$@"
`, log, buildctl, socket)})}
	ok(t, w.command(env, "builder", "create", "--name", "kube", "--bootstrap", "kube-pod://buildkit-0?namespace=ci&container=buildkitd&context=me@there"))
	buildOn(t, w, env, "kube")
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		assert.Equal(t, "--context=me@there --namespace=ci exec --container=buildkitd -i buildkit-0 -- buildctl dial-stdio\n", line)
	}
	ok(t, w.command(env, "builder", "create", "--name", "bare", "kube-pod://buildkit-0"))
	ok(t, w.command(env, "builder", "inspect", "--bootstrap", "bare"))
}

// endpointStopped has no engine, but a docker that does what docker does with a container that is stopped, and whose daemon
// takes a moment to begin: a build starts it.
func endpointStopped(t *testing.T, w who, buildctl, socket string) {
	log, started := filepath.Join(w.home, "docker.log"), filepath.Join(w.home, "started")
	env := []string{programs(t, w, map[string]string{"docker": fmt.Sprintf(`echo "$*" >> %[1]s
case "$*" in
"start mine") : > %[2]s; exit ;;
"start gone") echo "Error response from daemon: No such container: gone" >&2; exit 1 ;;
"exec -i gone buildctl dial-stdio") echo "Error response from daemon: container gone is not running" >&2; exit 1 ;;
"exec -i mine buildctl dial-stdio") ;;
*) exit 64 ;;
esac
[ -e %[2]s ] || { echo "Error response from daemon: container mine is not running" >&2; exit 1; }
[ -s %[2]s ] || { echo it begins > %[2]s; echo "dial unix /run/buildkit/buildkitd.sock: connect: connection refused" >&2; exit 1; }
exec %[3]s --addr unix://%[4]s dial-stdio
`, log, started, buildctl, socket)})}
	ok(t, w.command(env, "builder", "create", "--name", "mine", "docker-container://mine"))
	r := do(t, w.command(env, "builder", "du", "mine"))
	assert.Equal(t, 1, r.code, r.stderr)
	assert.Contains(t, r.stderr, "hint: `manifestctl builder inspect --bootstrap NAME`", "only builds start one")
	assert.NoFileExists(t, started)
	buildOn(t, w, env, "mine")
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	assert.Equal(t, 1, strings.Count(string(text), "start mine\n"), string(text))

	ok(t, w.command(env, "builder", "create", "--name", "gone", "docker-container://gone"))
	r = do(t, w.command(env, "build", "--builder", "gone", filepath.Join(w.home, "on-mine")))
	assert.Equal(t, 1, r.code, r.stderr)
	assert.Contains(t, r.stderr, "docker start gone: exit status 1\nError response from daemon: No such container: gone")
	assert.Contains(t, r.stderr, "--builder local builds on this machine")
}

// buildkitRoot makes the file system of an image of BuildKit, as an archive: the programs, runc, and what runc is linked to.
func buildkitRoot(t *testing.T, bin string) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{
		filepath.Join(bin, "buildkitd"): "/usr/bin/buildkitd", filepath.Join(bin, "buildctl"): "/usr/bin/buildctl", tool(t, "runc"): "/usr/bin/runc",
	}
	linked, _ := exec.Command("ldd", tool(t, "runc")).Output() // fails for one that is linked to nothing
	for field := range strings.FieldsSeq(string(linked)) {
		if strings.HasPrefix(field, "/") {
			files[field] = field
		}
	}
	for from, to := range files {
		data, err := os.ReadFile(from)
		require.NoError(t, err)
		to = filepath.Join(dir, to)
		require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o755))
		require.NoError(t, os.WriteFile(to, data, 0o755))
	}
	for _, name := range []string{"tmp", "run", "etc", "var/lib/buildkit"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
	}
	archive := filepath.Join(t.TempDir(), "root.tar")
	must(t, exec.Command("tar", "-C", dir, "-cf", archive, "."))
	return archive
}

// privileged are the flags of a container that may run containers: --privileged where this machine's root may do everything
// itself, and everything that it may where it lacks something.
func privileged(t *testing.T) []string {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	last, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	require.NoError(t, err)
	_, line, _ := strings.Cut(string(status), "CapBnd:")
	line, _, _ = strings.Cut(line, "\n")
	have, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	require.NoError(t, err)
	n, err := strconv.Atoi(strings.TrimSpace(string(last)))
	require.NoError(t, err)
	if have == 1<<(n+1)-1 {
		return []string{"--privileged"}
	}
	flags := []string{"--cap-drop=ALL", "--security-opt=seccomp=unconfined", "--volume=/sys/fs/cgroup:/sys/fs/cgroup"}
	for i, name := range strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
		NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT
		SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM
		BLOCK_SUSPEND AUDIT_READ`) {
		if have&(1<<i) != 0 {
			flags = append(flags, "--cap-add="+name)
		}
	}
	return flags
}

// daemonIn are the arguments of "docker run" for a daemon in a container, as buildx starts it but for the network.
func daemonIn(t *testing.T, name, image string, flags ...string) []string {
	t.Helper()
	state := t.TempDir()
	t.Cleanup(func() { unmountBelow(t, state) })
	args := append([]string{"run", "-d", "--name", name, "--network", "none", "--volume=" + state + ":/var/lib/buildkit"}, privileged(t)...)
	return append(append(args, flags...), image, "buildkitd", "--oci-worker-net", "host", "--oci-worker-snapshotter", "overlayfs",
		"--addr", "unix:///run/buildkit/buildkitd.sock")
}

func endpointDocker(t *testing.T, bin string) {
	docker := dockerd(t)
	w := root(t)
	env := []string{"DOCKER_HOST=" + docker("version").Args[2]}
	ran(t, docker("import", buildkitRoot(t, bin), "buildkit:here"))
	ran(t, docker(daemonIn(t, "buildx_buildkit_mine0", "buildkit:here", "--security-opt=systempaths=unconfined")...))
	t.Cleanup(func() { _ = docker("rm", "-f", "buildx_buildkit_mine0").Run() })

	ok(t, w.command(env, "builder", "create", "--name", "engine", "--bootstrap", "docker-container://buildx_buildkit_mine0"))
	buildOn(t, w, env, "engine")

	// The builder that buildx would have written for it.
	buildx := w.dir(t, ".docker/buildx/instances")
	require.NoError(t, os.WriteFile(filepath.Join(buildx, "mine"), []byte(
		`{"Name":"mine","Driver":"docker-container","Nodes":[{"Name":"mine0","Endpoint":"unix:///var/run/docker.sock","Platforms":null,"DriverOpts":null,"Flags":null,"Files":null}],"Dynamic":false}`), 0o600))
	assert.Contains(t, ok(t, w.command(env, "builder", "ls")).stdout, "docker-container://buildx_buildkit_mine0")
	buildOn(t, w, env, "mine")

	// The container has no network at all: a registry that only this machine reaches is read by this machine.
	registry := debianRegistry(t)
	base := nodeBase(t, w, registry)
	lent := w.dir(t, "lent")
	require.NoError(t, os.WriteFile(filepath.Join(lent, "Dockerfile"), []byte("FROM "+base+"\nRUN echo here > /here\n"), 0o644))
	ok(t, w.command(env, "build", "--builder", "engine", "-t", registry+"/lent:1", "--push", lent))
	assert.Contains(t, ok(t, w.command(env, "inspect", registry+"/lent:1")).stdout, "linux/amd64")

	// One that is stopped is started by --bootstrap, and by a build.
	ok(t, w.command(env, "builder", "stop", "mine"))
	r := do(t, w.command(env, "builder", "du", "mine"))
	assert.Equal(t, 1, r.code, r.stderr)
	assert.Contains(t, r.stderr, "is not running")
	assert.Contains(t, r.stderr, "`manifestctl builder inspect --bootstrap NAME`")
	ok(t, w.command(env, "builder", "inspect", "--bootstrap", "mine"))
	ok(t, w.command(env, "builder", "stop", "mine"))
	buildOn(t, w, env, "mine")
}

func endpointPodman(t *testing.T, bin string) {
	needs(t, "podman", "runc")
	w := root(t)
	path, podman := podmanHere(t)
	env := []string{"PATH=" + path + ":" + os.Getenv("PATH")}
	ran(t, podman("import", buildkitRoot(t, bin), "localhost/buildkit:here"))
	// The limits: whoever may not raise them cannot have podman's own.
	ran(t, podman(daemonIn(t, "buildkitd", "localhost/buildkit:here", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--security-opt=unmask=ALL")...))
	t.Cleanup(func() { _ = podman("rm", "-f", "-t", "5", "buildkitd").Run() })
	ok(t, w.command(env, "builder", "create", "--name", "nobody", "podman-container://nobody"))
	r := do(t, w.command(env, "builder", "inspect", "--bootstrap", "nobody"))
	assert.Equal(t, 1, r.code, r.stderr)
	assert.Contains(t, r.stderr, "nobody")
	ok(t, w.command(env, "builder", "create", "--name", "pod", "--bootstrap", "podman-container://buildkitd"))
	buildOn(t, w, env, "pod")
	ok(t, w.command(env, "builder", "stop", "pod"))
	ok(t, w.command(env, "builder", "inspect", "--bootstrap", "pod"))
	ok(t, w.command(env, "builder", "stop", "pod"))
	buildOn(t, w, env, "pod")
}
