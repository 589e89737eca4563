package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDebianDockerfile builds what Debian's buildpack-deps does: apt-get of curl, git and gcc with a cache mount, a user, a program that is
// compiled and run, on amd64 and arm64, as an ordinary user. Minutes under qemu: make e2e-long.
func TestDebianDockerfile(t *testing.T) {
	if os.Getenv("MANIFESTCTL_LONG") == "" {
		t.Skip("many minutes of apt and gcc under qemu: MANIFESTCTL_LONG=1")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("the base is made for amd64 and arm64 on amd64")
	}
	tool(t, "mmdebstrap")
	w := ordinary(t, "ranges")
	registry := debianRegistry(t)
	base := w.copyTree(t, "../../examples/debian/base", "base")
	must(t, exec.Command("../../scripts/debian-base.sh", base, "amd64", "arm64"))
	w.own(t, base)
	ok(t, w.command(nil, "build", "--progress", "plain", "-t", registry+"/debian:bookworm", "--push", base))

	dir := w.dir(t, "deps")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(`# syntax=docker/dockerfile:1
ARG BASE
FROM ${BASE} AS deps
ENV DEBIAN_FRONTEND=noninteractive
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    apt-get update && apt-get install -y --no-install-recommends ca-certificates curl git gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 app
USER app
WORKDIR /home/app
COPY --chown=app hello.c .
RUN gcc -o hello hello.c && ./hello > said && id -un >> said && curl --version >/dev/null && git --version >> said
FROM scratch
COPY --from=deps /home/app/said /home/app/hello /
`), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "hello.c"), []byte(`#include <stdio.h>
#include <sys/utsname.h>
int main(void) { struct utsname u; uname(&u); printf("hello from %s\n", u.machine); return 0; }
`), 0o644))
	w.own(t, dir)
	r := ok(t, w.command(nil, "build", "--progress", "plain", "--platform=linux/amd64,linux/arm64", "--build-arg", "BASE="+registry+"/debian:bookworm",
		"-t", registry+"/deps:1", "--push", dir))
	t.Logf("%s", lastLines(r.stderr, 6))
	for platform, machine := range map[string]string{"linux/amd64": "x86_64", "linux/arm64": "aarch64"} {
		out := filepath.Join(w.home, machine)
		ok(t, w.command(nil, "build", "-q", "--platform="+platform, "--build-arg", "BASE="+registry+"/debian:bookworm", "-o", out, dir))
		said, err := os.ReadFile(filepath.Join(out, "said"))
		require.NoError(t, err)
		lines := strings.Split(string(said), "\n")
		assert.Equal(t, "hello from "+machine, lines[0])
		assert.Equal(t, "app", lines[1])
		assert.Contains(t, lines[2], "git version")
	}
}
