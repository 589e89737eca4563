package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/oracle"
	"github.com/manifestctl/manifestctl/internal/testregistry"
)

// fleet is two real BuildKit daemons that want certificates. The second runs arm64 by BuildKit's own means, with Debian's emulator.
type fleet struct {
	dir     string // certificates: ca.pem, client.pem, client-key.pem
	daemons [2]*oracle.Daemon
}

// buildkitHere is the directory of BuildKit's programs. It builds them when no one did before (minutes).
func buildkitHere(t *testing.T) string {
	t.Helper()
	if os.Getenv("MANIFESTCTL_NODES") == "" {
		t.Skip("it builds and starts BuildKit daemons: make nodes")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("the other platform is arm64 here")
	}
	if os.Getuid() != 0 {
		t.Skip("BuildKit's daemon needs root")
	}
	require.NoError(t, oracle.Available())
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	bin, err := oracle.Binaries(t.Context(), root)
	require.NoError(t, err)
	return bin
}

// newFleet starts them.
func newFleet(t *testing.T) *fleet {
	t.Helper()
	bin := buildkitHere(t)

	f := &fleet{dir: t.TempDir()}
	for dir := f.dir; dir != os.TempDir(); dir = filepath.Dir(dir) { // certificates are for every user
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	ca, err := testregistry.NewAuthority("nodes")
	require.NoError(t, err)
	f.write(t, "ca.pem", ca.PEM)
	f.issue(t, ca, "server")
	f.issue(t, ca, "client")
	emulators := t.TempDir()
	require.NoError(t, os.Symlink(tool(t, "qemu-aarch64-static"), filepath.Join(emulators, "buildkit-qemu-aarch64")))
	for i := range f.daemons {
		dir := t.TempDir()
		env := []string{}
		if i == 1 {
			env = append(env, "PATH="+emulators+":"+os.Getenv("PATH"))
		}
		f.daemons[i], err = oracle.StartWith(t.Context(), bin, dir, oracle.Options{Env: env, TLS: &oracle.TLS{
			CA: f.file("ca.pem"), Cert: f.file("server.pem"), Key: f.file("server-key.pem"),
			ClientCert: f.file("client.pem"), ClientKey: f.file("client-key.pem"),
		}})
		require.NoError(t, err)
		t.Cleanup(func() {
			_ = f.daemons[i].Close()
			unmountBelow(t, dir) // a daemon that was killed leaves its steps' root file systems
		})
	}
	return f
}

// unmountBelow detaches what is mounted below dir.
func unmountBelow(t *testing.T, dir string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			_ = exec.Command("umount", "-l", fields[1]).Run()
		}
	}
}

func (f *fleet) file(name string) string { return filepath.Join(f.dir, name) }

func (f *fleet) write(t *testing.T, name string, data []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(f.file(name), data, 0o644))
}

func (f *fleet) issue(t *testing.T, ca *testregistry.Authority, name string) {
	t.Helper()
	cert, key, err := ca.Issue(time.Now().Add(-time.Minute), "127.0.0.1")
	require.NoError(t, err)
	f.write(t, name+".pem", cert)
	f.write(t, name+"-key.pem", key)
}

// options are the flags of builder create that open the daemons.
func (f *fleet) options(client string) []string {
	return []string{"--driver-opt", "cacert=" + f.file("ca.pem") + ",cert=" + f.file(client+".pem") + ",key=" + f.file(client+"-key.pem")}
}

// builders makes "one", the second daemon, and "two", both, of which the second is for arm64.
func (f *fleet) builders(t *testing.T, w who) {
	t.Helper()
	create := func(args ...string) {
		ok(t, w.command(nil, append(append([]string{"builder", "create"}, f.options("client")...), args...)...))
	}
	create("--name", "one", "--platform", "linux/amd64,linux/arm64", "--bootstrap", f.daemons[1].Addr)
	create("--name", "two", f.daemons[0].Addr)
	create("--name", "two", "--append", "--platform", "linux/arm64", "--bootstrap", f.daemons[1].Addr)
}

// nodeCases are contexts whose steps use nothing but what busybox's shell does itself: under BuildKit's own emulation a
// foreign process cannot start another one.
var nodeCases = map[string]map[string]string{
	"spec": {
		"rootfs.yaml": `version: 1
platforms: [linux/amd64, linux/arm64]
args: {BASE: ""}
from: "${BASE}"
steps:
  - files: [{path: /etc/app.conf, content: "a\n", owner: "app:app"}]
  - run: "read a < /etc/app.conf; echo $a $TARGETARCH $HOME $PATH $SOURCE_DATE_EPOCH > /out; read b < /src/input; echo $b >> /out"
    mounts: [{type: bind, source: input, target: /src/input}, {type: cache, target: /cache}]
  - remove: [/etc/app.conf]
  - run: "test -e /etc/app.conf || echo gone > gone; echo $PWD > pwd"
    workdir: /srv/app
    user: app
  - files: [{path: /last, content: "x"}]
config: {entrypoint: [/bin/sh]}
`,
		"input": "from the context\n",
	},
	"stages": {
		"Dockerfile": `# syntax=docker/dockerfile:1
ARG BASE
FROM ${BASE} AS make
ARG TARGETARCH
COPY input /in/
RUN read a < /in/input; echo $a for $TARGETARCH > /made; : > /in/b
FROM ${BASE}
ENV X=y
RUN echo $X > /x; echo $HOME > /home
COPY --from=make --chown=app:app /made /in /dest/
WORKDIR /srv/app
USER app
RUN echo mine > /tmp/mine
ENTRYPOINT ["/bin/sh"]
LABEL a=b
`,
		"input": "words\n",
	},
	"mounts": {
		"Dockerfile": `ARG BASE
FROM ${BASE}
RUN --mount=type=secret,id=s,required --mount=type=cache,target=/c,mode=0700 --mount=type=bind,target=/src \
    read a < /run/secrets/s; read b < /src/input; echo "$a $b" > /seen; echo > /c/x
COPY --link --chmod=640 input /linked
COPY <<END /here/doc
some $TEXT
END
`,
		"input": "bound\n", ".dockerignore": "secret*\n", "secret": "hidden\n",
	},
	"scratch": {
		"Dockerfile": `ARG BASE
FROM ${BASE} AS base
FROM scratch
ARG TARGETARCH
COPY --from=base /bin/busybox /bin/
COPY --from=base /etc/passwd /etc/
ADD dir.tar /unpacked/
COPY dir /dir
WORKDIR /dir/more
ENTRYPOINT ["/bin/busybox"]
`,
		"dir/a": "1\n", "dir/sub/b": "2\n", "dir.tar": "",
	},
}

// makeCase writes the context of a case.
func makeCase(t *testing.T, w who, name string) string {
	t.Helper()
	dir := w.dir(t, "case-"+name)
	for path, text := range nodeCases[name] {
		full := filepath.Join(dir, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o755))
		require.NoError(t, os.WriteFile(full, []byte(text), 0o644))
	}
	if _, ok := nodeCases[name]["dir.tar"]; ok {
		must(t, exec.Command("tar", "--sort=name", "--owner=0", "--group=0", "-C", filepath.Join(dir, "dir"), "-cf", filepath.Join(dir, "dir.tar"), "."))
	}
	w.own(t, dir)
	return dir
}

// nodeBase pushes a base image with a user, and gives its name.
func nodeBase(t *testing.T, w who, registry string) string {
	t.Helper()
	base := alpineLike(t, w, registry)
	dir := w.dir(t, "base-of-nodes")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "rootfs.yaml"), []byte(`version: 1
platforms: [linux/amd64, linux/arm64]
from: `+base+`
steps:
  - files:
      - {path: /dev, type: directory}
      - {path: /proc, type: directory}
      - {path: /sys, type: directory}
      - {path: /etc/passwd, content: "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"}
      - {path: /etc/group, content: "root:x:0:\napp:x:1000:\n"}
      - {path: /srv/app, type: directory, owner: "1000:1000"}
`), 0o644))
	w.own(t, dir)
	name := registry + "/base:" + w.name
	ok(t, w.command(nil, "build", "-q", "--builder", "local", "-t", name, "--push", dir))
	return name
}

// TestNodes builds on real BuildKit daemons: what comes out is what this machine makes, and what goes wrong is said.
func TestNodes(t *testing.T) {
	f := newFleet(t)
	registry := debianRegistry(t)

	t.Run("same images", func(t *testing.T) {
		w := ordinary(t, "ranges")
		f.builders(t, w)
		base := nodeBase(t, w, registry)
		secret := filepath.Join(w.home, "s")
		require.NoError(t, os.WriteFile(secret, []byte("hush\n"), 0o644))
		for name := range nodeCases {
			t.Run(name, func(t *testing.T) { sameOnNodes(t, w, name, base, secret) })
		}
	})

	w := root(t)
	f.builders(t, w)
	base := nodeBase(t, w, registry)
	app := w.dir(t, "app")
	dockerfile := func(text string) {
		require.NoError(t, os.WriteFile(filepath.Join(app, "Dockerfile"), []byte("FROM "+base+"\n"+text), 0o644))
	}

	t.Run("errors", func(t *testing.T) {
		other, err := testregistry.NewAuthority("another")
		require.NoError(t, err)
		f.issue(t, other, "stranger")
		create := func(args ...string) { ok(t, w.command(nil, append([]string{"builder", "create"}, args...)...)) }
		create(append(f.options("stranger"), "--name", "stranger", f.daemons[0].Addr)...)
		create("--name", "untrusted", "--driver-opt", "servername=127.0.0.1", f.daemons[0].Addr)
		create("--name", "naked", f.daemons[0].Addr)
		create("--name", "gone", "tcp://127.0.0.1:1") // a port that nothing has
		dockerfile("RUN echo no >&2; exit 7\n")
		for name, tc := range map[string]struct {
			args []string
			code int
			want []string
		}{
			"our certificate":       {[]string{"--builder", "stranger"}, 7, []string{"node stranger0", "certificate"}},
			"their certificate":     {[]string{"--builder", "untrusted"}, 7, []string{"node untrusted0", "certificate"}},
			"no TLS":                {[]string{"--builder", "naked"}, 1, []string{"node naked0"}},
			"nobody there":          {[]string{"--builder", "gone"}, 1, []string{"node gone0", "connection refused"}},
			"nobody for a platform": {[]string{"--builder", "two", "--platform", "linux/s390x"}, 8, []string{"linux/s390x", "two0 builds linux/amd64", "--fallback"}},
			"a step":                {[]string{"--builder", "two"}, 3, []string{"Dockerfile:2", "exit code 7", ">>> RUN echo no"}},
		} {
			began := time.Now()
			r := do(t, w.command(nil, append(append([]string{"build", "--progress=plain"}, tc.args...), app)...))
			assert.Equal(t, tc.code, r.code, "%s: %s", name, r.stderr)
			for _, text := range tc.want {
				assert.Contains(t, r.stderr, text, name)
			}
			assert.Less(t, time.Since(began), 5*time.Minute, "%s: it is said at once", name)
		}
	})

	t.Run("session", func(t *testing.T) { f.session(t, w, base) })
	t.Run("caches", func(t *testing.T) { f.caches(t, w, registry, base) })

	t.Run("killed", func(t *testing.T) {
		dockerfile("RUN --mount=type=secret,id=wait read w < /run/secrets/wait; echo going; if [ \"$w\" = yes ]; then sleep 600; fi\nRUN echo done > /done\n")
		f.kill(t, w, app)

		dockerfile("RUN echo here > /here\n")
		r := ok(t, w.command(nil, "build", "--builder", "two", "--progress=plain", app)) // the other is left
		assert.Contains(t, r.stderr, "the build goes on without it")
	})

	t.Run("fallback", func(t *testing.T) {
		dockerfile("RUN uname -m > /m\n")
		r := do(t, w.command(nil, "build", "--builder", "two", "--platform", "linux/s390x", "--fallback", app))
		assert.NotContains(t, r.stderr, "no node builds", "it is this machine's turn: %s", r.stderr)
		for _, d := range f.daemons {
			_ = d.Close()
		}
		r = ok(t, w.command(nil, "build", "--builder", "two", "--platform", "linux/amd64", "--fallback", "--progress=plain", app))
		assert.Contains(t, r.stderr, "RUN uname -m")
	})
}

// sameOnNodes builds a case here, on one node and on two, and compares.
func sameOnNodes(t *testing.T, w who, name, base, secret string) {
	dir := makeCase(t, w, name)
	digests := map[string]string{}
	dest := func(builder string) string { return filepath.Join(w.home, name+"-"+builder) }
	for _, builder := range []string{"local", "one", "two"} {
		args := []string{
			"--root", filepath.Join(w.home, "store-"+builder), "build", "--progress=plain", "--builder", builder, "--build-arg", "BASE=" + base,
			"-o", "type=oci,tar=false,rewrite-timestamp=true,dest=" + dest(builder),
		}
		if name != "spec" {
			args = append(args, "--platform", "linux/amd64,linux/arm64")
		}
		if name == "mounts" {
			args = append(args, "--secret", "id=s,src="+secret)
		}
		r := ok(t, w.other([]string{"SOURCE_DATE_EPOCH=1700000000"}, shared.bin, append(args, dir)...))
		digests[builder] = digestOf(t, r)
	}
	for _, builder := range []string{"one", "two"} {
		if !assert.Equal(t, digests["local"], digests[builder], "%s on %s is not what it is here", name, builder) {
			t.Log(do(t, w.command(nil, "diff", "oci:"+dest("local"), "oci:"+dest(builder))).stdout)
		}
	}
}

// kill builds dir, whose step says "going" and waits, and kills the node that it is on: the other, where it need not wait,
// finishes it.
func (f *fleet) kill(t *testing.T, w who, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	wait := filepath.Join(w.home, "wait")
	require.NoError(t, os.WriteFile(wait, []byte("yes\n"), 0o600))
	c := w.command(nil, "build", "--no-cache", "--progress=rawjson", "--builder", "two", "--secret", "id=wait,src="+wait, dir)
	stderr, err := c.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	stop := context.AfterFunc(ctx, func() { _ = c.Process.Kill() })
	defer stop()
	var nodes []string // that the step began on
	var all strings.Builder
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	killed := false
	for lines.Scan() {
		all.WriteString(lines.Text() + "\n")
		var e struct {
			Kind, Name, Node string
			Data             []byte
		}
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue
		}
		if e.Kind == "start" && strings.Contains(e.Name, "sleep 600") {
			nodes = append(nodes, e.Node)
		}
		if e.Kind == "log" && strings.Contains(string(e.Data), "going") && !killed {
			killed = true
			require.NotEmpty(t, nodes)
			require.NoError(t, os.WriteFile(wait, []byte("no\n"), 0o600))
			require.NoError(t, f.daemons[map[string]int{"two0": 0, "two1": 1}[nodes[0]]].Kill())
		}
	}
	require.NoError(t, c.Wait(), all.String())
	require.True(t, killed, all.String())
	require.Len(t, nodes, 2, "the step was begun again: %s", all.String())
	assert.NotEqual(t, nodes[0], nodes[1])
	assert.Contains(t, all.String(), "the node was lost")
	assert.Contains(t, ok(t, w.command(nil, "builder", "ls")).stdout, "unreachable")
}

// caches: records of a spec are ours wherever it is built, those of a Dockerfile are BuildKit's, with a tag for each platform.
func (f *fleet) caches(t *testing.T, w who, registry, base string) {
	dir := makeCase(t, w, "spec")
	build := func(root, builder string, args ...string) result {
		return ok(t, w.other(nil, shared.bin, append([]string{
			"--root", filepath.Join(w.home, root), "build", "--progress=plain", "--builder", builder, "--build-arg", "BASE=" + base,
		}, args...)...))
	}
	build("spec-store", "two", dir)
	r := build("spec-store", "local", dir)
	assert.Empty(t, stepsRun(r.stderr), "what a node did is not done again here: %s", r.stderr)
	assert.Contains(t, r.stderr, "CACHED")

	dir = makeCase(t, w, "stages")
	cache := registry + "/cache:c"
	platforms := []string{"--platform", "linux/amd64,linux/arm64"}
	build("first", "two", append(platforms, "--cache-to", "type=registry,mode=max,ref="+cache, dir)...)
	for _, suffix := range []string{"-linux-amd64", "-linux-arm64"} {
		ok(t, w.command(nil, "digest", cache+suffix))
	}
	assert.Contains(t, ok(t, w.command(nil, "builder", "du", "--verbose", "--filter", "type=regular", "two")).stdout, "two1")
	pruned := ok(t, w.command(nil, "builder", "prune", "--all", "two")).stdout
	assert.Regexp(t, `(?m)^two0: freed .* [1-9][0-9]* records$`, pruned)
	assert.Regexp(t, `(?m)^two1: freed .* [1-9][0-9]* records$`, pruned)
	assert.Contains(t, ok(t, w.command(nil, "builder", "du", "--format", "json", "--filter", "type=regular", "two")).stdout, "[]")
	r = build("second", "two", append(platforms, "--cache-from", "type=registry,ref="+cache, dir)...)
	assert.Empty(t, stepsRun(r.stderr), "every step is in the cache: %s", r.stderr)
	assert.Contains(t, r.stderr, "CACHED")

	local, said := filepath.Join(w.home, "localcache"), w.dir(t, "said")
	require.NoError(t, os.WriteFile(filepath.Join(said, "Dockerfile"), []byte("ARG BASE\nFROM ${BASE}\nRUN echo it r\"\"an; : > /ran\nRUN : > /after\n"), 0o644))
	args := append(platforms, "--cache-from", "type=local,src="+local, "--cache-to", "type=local,mode=max,dest="+local, said)
	r = build("third", "two", args...) // there is none yet
	assert.Contains(t, r.stderr, "it ran")
	assert.NotContains(t, r.stderr, "level=", "no library speaks to the terminal: %s", r.stderr)
	ok(t, w.command(nil, "builder", "prune", "--all", "two"))
	r = build("fourth", "two", args...)
	assert.NotContains(t, r.stderr, "it ran", "it is in the cache")
	assert.Empty(t, stepsRun(r.stderr), "the last step of each platform too: %s", r.stderr)

	refused := do(t, w.command(nil, "build", "--builder", "two", "--build-arg", "BASE="+base, "--cache-to", "type=inline", dir))
	assert.Equal(t, 2, refused.code, refused.stderr)
}

// stepsRun gives the RUN steps of a plain log that were not cached.
func stepsRun(log string) []string {
	titles := map[string]string{}
	var out []string
	for line := range strings.Lines(log) {
		number, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case strings.HasPrefix(rest, "[") && strings.Contains(rest, "] RUN "):
			titles[number] = rest
		case strings.HasPrefix(rest, "DONE ") && titles[number] != "":
			out = append(out, titles[number])
		}
	}
	return out
}

// session: credentials, ssh agents, images and layers of this side reach the nodes, and the gate stands behind them.
func (f *fleet) session(t *testing.T, w who, base string) {
	dir := w.dir(t, "session")
	dockerfile := func(text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644))
	}
	build := func(args ...string) *exec.Cmd {
		return w.command(nil, append(append([]string{"build", "--progress=plain", "--builder", "two"}, args...), dir)...)
	}

	users := filepath.Join(w.home, "users")
	must(t, exec.Command(tool(t, "htpasswd"), "-Bbc", users, "me", "secret"))
	private := startServe(t, w, "--htpasswd", users)
	login := w.command(nil, "login", "-u", "me", "--password-stdin", private.addr)
	login.Stdin = strings.NewReader("secret")
	ok(t, login)
	name := private.addr + "/private:1"
	ok(t, w.command(nil, "copy", base, name))
	dockerfile("FROM " + name + "\nRUN echo let in > /in\n")
	ok(t, build("-t", private.addr+"/made:1", "--push", "--platform", "linux/amd64,linux/arm64"))
	ok(t, w.command(nil, "verify", private.addr+"/made:1"))

	key := filepath.Join(w.home, "key")
	must(t, exec.Command(tool(t, "ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key))
	dockerfile("FROM " + base + "\nRUN --mount=type=ssh,required=true test -S \"$SSH_AUTH_SOCK\"\n")
	ok(t, build("--ssh", "default="+key))
	r := do(t, build("--no-cache"))
	assert.Equal(t, 3, r.code, r.stderr)

	layout := filepath.Join(w.home, "layout")
	ok(t, w.command(nil, "copy", base, "oci:"+layout+":x"))
	dockerfile("FROM named\nRUN echo here > /here\n")
	ok(t, build("--build-context", "named=oci-layout://"+layout+":x", "--platform", "linux/amd64,linux/arm64", "-t", "made"))
	ok(t, w.command(nil, "verify", "store:made"))

	dockerfile("FROM " + base + "\nCOPY --from=foreign /bin/busybox /bin/init\nENTRYPOINT [\"/bin/init\"]\n")
	arm := filepath.Join(w.home, "arm")
	ok(t, w.command(nil, "copy", "--platform", "linux/arm64", base, "oci:"+arm+":x"))
	r = do(t, build("--build-context", "foreign=oci-layout://"+arm+":x", "--platform", "linux/arm64"))
	assert.Zero(t, r.code, r.stderr)

	ok(t, w.command(nil, append(append([]string{"builder", "create", "--name", "mixed"}, f.options("client")...), f.daemons[0].Addr)...))
	ok(t, w.command(nil, "builder", "create", "--name", "mixed", "--append", "--driver", "local", "--platform", "linux/arm64"))
	dockerfile("FROM " + base + "\nRUN uname -m > /m\n") // another process: this machine's emulation runs it
	r = ok(t, w.command(nil, "build", "--progress=plain", "--builder", "mixed", "--platform", "linux/amd64,linux/arm64", dir))
	assert.Contains(t, r.stderr, "[mixed0 linux/amd64 2/2] RUN")
	assert.Contains(t, r.stderr, "[linux/arm64 2/2] RUN")
}
