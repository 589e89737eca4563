package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// busyboxes is a directory with busybox of Debian for amd64 and arm64, as ARCH.tar, made once.
var busyboxes = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(shared.dir, "busyboxes")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	c := exec.Command("../../scripts/busybox.sh", dir, "amd64", "arm64")
	c.Stderr = os.Stderr
	return dir, c.Run()
})

// alpineLike pushes an image like alpine's for amd64 and arm64: busybox with its links, and gives its name.
func alpineLike(t *testing.T, w who, registry string) string {
	t.Helper()
	tool(t, "mmdebstrap")
	tars, err := busyboxes()
	require.NoError(t, err)
	tree := w.copyTree(t, tars, "base-"+w.name)
	require.NoError(t, os.WriteFile(filepath.Join(tree, "rootfs.yaml"), []byte(`version: 1
platforms: [linux/amd64, linux/arm64]
from: scratch
steps:
  - archive: {source: "${DEB_ARCH}.tar", path: /}
  - files:
      - {path: /bin/sh, type: symlink, target: busybox}
      - {path: /tmp, type: directory, mode: "1777"}
      - {path: /etc/passwd, content: "root:x:0:0:root:/root:/bin/sh\n"}
      - {path: /etc/group, content: "root:x:0:\n"}
  - run: [/bin/busybox, --install, -s, /bin]
config: {cmd: [/bin/sh], env: {PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}}
`), 0o644))
	name := registry + "/alpine:" + w.name
	ok(t, w.command(nil, "build", "-q", "-t", name, "--push", tree))
	return name
}

// TestGuide is the walk of docker's guide to images for several platforms: with buildx it takes a privileged container
// for the emulators, a builder container, and three commands; here it is an ordinary user and one command.
func TestGuide(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the other platform is arm64 here")
	}
	registry := debianRegistry(t)
	for _, w := range everybody(t) {
		t.Run(w.name, func(t *testing.T) {
			base := alpineLike(t, w, registry)
			dir := w.dir(t, "app")
			require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("ARG BASE\nFROM ${BASE}\nRUN uname -a\n"), 0o644))
			build := func(args ...string) result {
				return ok(t, w.command(nil, append([]string{
					"build", "--build-arg", "BASE=" + base, "--no-cache", "--progress=plain",
				}, append(args, dir)...)...))
			}
			tag := registry + "/app:" + w.name

			host := build()
			assert.Regexp(t, `(?m)^#\d+ [0-9.]+ Linux .*x86_64`, host.stderr)
			assert.NotContains(t, host.stderr, "aarch64")

			other := build("--platform=linux/arm64")
			assert.Regexp(t, `(?m)^#\d+ [0-9.]+ Linux .*aarch64`, other.stderr)
			assert.NotContains(t, other.stderr, " x86_64")

			both := build("--platform=linux/amd64,linux/arm64", "-t", tag, "--push")
			assert.Regexp(t, `(?m)^#\d+ \[linux/amd64 2/2\] RUN uname -a$`, both.stderr)
			assert.Regexp(t, `(?m)^#\d+ \[linux/arm64 2/2\] RUN uname -a$`, both.stderr)
			assert.Contains(t, both.stderr, "aarch64")
			assert.Contains(t, both.stderr, "x86_64")

			for platform, want := range map[string]string{"linux/amd64": "amd64", "linux/arm64": "arm64"} {
				r := ok(t, w.command(nil, "inspect", "--platform", platform, "-f", "{{.Architecture}}", tag))
				assert.Equal(t, want, strings.TrimSpace(r.stdout))
			}
			assert.Equal(t, digestOf(t, both), strings.TrimSpace(ok(t, w.command(nil, "digest", tag)).stdout))
		})
	}
}

// TestDockerfileIsTheSameForEverybody builds one Dockerfile with most of what Dockerfiles do, as root and as ordinary users.
func TestDockerfileIsTheSameForEverybody(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the other platform is arm64 here")
	}
	registry := debianRegistry(t)
	base := alpineLike(t, everybody(t)[0], registry)
	digests := map[string]string{}
	for _, w := range everybody(t) {
		dir := w.dir(t, "ctx")
		for name, text := range map[string]string{
			"Dockerfile": `# syntax=docker/dockerfile:1
ARG BASE
FROM --platform=$BUILDPLATFORM ${BASE} AS make
ARG TARGETARCH
RUN --mount=type=bind,target=/src --mount=type=cache,target=/cache <<EOF
set -e
cat /src/a /src/sub/b > /out
echo $TARGETARCH >> /out
EOF
FROM ${BASE}
RUN echo app:x:1000:1000::/home/app:/bin/sh >> /etc/passwd && echo app:x:1000: >> /etc/group
WORKDIR /srv/app
COPY --chown=app:app --chmod=640 --from=make /out made
COPY --link sub /linked
ADD files.tar /unpacked
RUN --mount=type=secret,id=token,required test "$(wc -c < /run/secrets/token)" = 6
USER app
RUN id > /tmp/who && test "$HOME" = /home/app
RUN --mount=type=cache,target=/mine,uid=1000,gid=1000,mode=0750 echo x > /mine/x && ls -ldn /mine | cut -c1-30 > /tmp/mine
ENTRYPOINT ["/bin/cat"]
CMD ["made"]
`,
			".dockerignore": "ignored\ntoken\n", "a": "A\n", "sub/b": "B\n", "ignored": "I\n", "token": "s3cret",
		} {
			p := filepath.Join(dir, name)
			require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
			require.NoError(t, os.WriteFile(p, []byte(text), 0o644))
		}
		must(t, exec.Command("tar", "-C", dir, "--owner=0", "--group=0", "--mtime=@0", "--sort=name", "-cf", filepath.Join(dir, "files.tar"), "sub"))
		w.own(t, dir)
		build := func(args ...string) result {
			return ok(t, w.command(epoch, append([]string{
				"build", "--progress=plain", "--build-arg", "BASE=" + base, "--platform=linux/amd64,linux/arm64", "--secret", "id=token,src=" + filepath.Join(dir, "token"),
				"-t", registry + "/same:" + w.name, "-o", "type=registry,rewrite-timestamp=true",
			}, append(args, dir)...)...))
		}
		first := build()
		digests[w.name] = digestOf(t, first)
		assert.False(t, contains(t, filepath.Join(w.home, "store"), "s3cret"), "the secret is in the store")
		again := build()
		assert.Equal(t, digests[w.name], digestOf(t, again))
		for _, step := range regexp.MustCompile(`(?m)^#(\d+) \[.*\] RUN `).FindAllStringSubmatch(again.stderr, -1) {
			assert.Contains(t, again.stderr, "#"+step[1]+" CACHED\n", "nothing runs again")
		}

		out := filepath.Join(w.home, "out")
		ok(t, w.command(epoch, "build", "-q", "--build-arg", "BASE="+base, "--platform=linux/arm64", "--secret", "id=token,src="+filepath.Join(dir, "token"), "-o", out, dir))
		for name, want := range map[string]string{"srv/app/made": "A\nB\narm64\n", "linked/b": "B\n", "unpacked/sub/b": "B\n", "tmp/who": "uid=1000(app) gid=1000(app)"} {
			got, err := os.ReadFile(filepath.Join(out, name))
			require.NoError(t, err)
			assert.True(t, strings.HasPrefix(string(got), want), "%s as %s: %q", name, w.name, got)
		}
	}
	for name, d := range digests {
		assert.Equal(t, digests[everybody(t)[0].name], d, "as %s", name)
	}
}

// contains reports whether a file below dir holds text.
func contains(t *testing.T, dir, text string) bool {
	t.Helper()
	found := false
	require.NoError(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		found = found || strings.Contains(string(b), text)
		return err
	}))
	return found
}
