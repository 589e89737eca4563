package differential

import (
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hostile builds Dockerfiles that are up to no good; their names are rows of the table of attacks.
type hostile struct {
	*testing.T
	bin   string
	bases *bases
	store string
	tree  string // where the image's files are after ok
}

func (h *hostile) context(files map[string]string) string {
	dir := h.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		require.NoError(h, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(h, os.WriteFile(p, []byte(text), 0o644))
	}
	return dir
}

// run builds a context and returns what was printed.
func (h *hostile) run(dir string, flags ...string) (string, *os.ProcessState, error) {
	h.tree = filepath.Join(h.TempDir(), "tree")
	args := []string{"--root", h.store, "--timeout", "2m", "build", "--progress", "plain", "--verify=off", "-o", "type=local,dest=" + h.tree}
	for name := range h.bases.digests {
		args = append(args, "--build-context", name+"="+h.bases.reference(name, filepath.Join(h.bases.dir, name)))
	}
	c := exec.CommandContext(h.Context(), h.bin, append(append(args, flags...), dir)...)
	out, err := c.CombinedOutput()
	return string(out), c.ProcessState, err
}

func (h *hostile) ok(files map[string]string, flags ...string) string {
	h.Helper()
	out, _, err := h.run(h.context(files), flags...)
	require.NoError(h, err, out)
	return out
}

func (h *hostile) fails(files map[string]string, flags ...string) string {
	h.Helper()
	out, _, err := h.run(h.context(files), flags...)
	require.Error(h, err, out)
	return out
}

func (h *hostile) file(name string) string {
	h.Helper()
	data, err := os.ReadFile(filepath.Join(h.tree, name))
	require.NoError(h, err)
	return string(data)
}

const canary = "canary-c6e1f0a7d2b94853"

// grep returns the files below dir that hold text.
func grep(t *testing.T, dir, text string) (found []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(p)
		if strings.Contains(string(data), text) || strings.Contains(p, text) {
			found = append(found, p)
		}
		return err
	}))
	return found
}

func TestHostileDockerfiles(t *testing.T) {
	if testing.Short() {
		t.Skip("builds")
	}
	bin, bs := program(t), makeBases(t)
	const from = "FROM busybox\n"
	for name, test := range map[string]func(*hostile){
		"E04 much output without an end of line": func(h *hostile) {
			out, state, err := h.run(h.context(map[string]string{"Dockerfile": from + `RUN head -c 60000000 /dev/zero | tr '\0' x; printf '\033[2J\001\377'`}))
			require.NoError(h, err)
			assert.Less(h, len(out), 65_000_000)
			if usage, ok := state.SysUsage().(*syscall.Rusage); ok {
				assert.Less(h, usage.Maxrss, int64(400<<10), "KiB")
			}
		},
		"E14 a cache's id and source go up": func(h *hostile) {
			h.ok(map[string]string{"Dockerfile": from + "RUN ln -s /../../../../../../../../etc /up\nFROM busybox AS s\n" +
				"RUN mkdir /seed && echo own > /seed/hostname && ln -s /seed /lnk && ln -s /../../../../../../../etc /up\nFROM busybox\n" +
				"RUN --mount=type=cache,id=../../../../../../../tmp/escaped,target=/c touch /c/x && ls /c > /1\n" +
				"RUN --mount=type=cache,id=a,target=/c,from=s,source=/lnk cat /c/hostname > /2\n" +
				"RUN --mount=type=cache,id=b,target=/c,from=s,source=/up ls /c > /3\n"})
			assert.NoFileExists(h, "/tmp/escaped/x")
			assert.Equal(h, "own\n", h.file("2"))
			assert.NotContains(h, h.file("3"), "shadow")
		},
		"E15 a bind's source is a link": func(h *hostile) {
			h.ok(map[string]string{"Dockerfile": "FROM busybox AS s\nRUN ln -s /../../../../../../../../etc /up && echo mine > /etc/mark\nFROM busybox\n" +
				"RUN --mount=type=bind,from=s,source=/up,target=/m cat /m/mark > /1; ls /m > /2\n" +
				"RUN --mount=type=bind,from=s,source=/etc,target=/m,rw rm /m/mark; touch /m/new\n" +
				"RUN --mount=type=bind,from=s,source=/etc,target=/m ls /m > /3\n"})
			assert.Equal(h, "mine\n", h.file("1"))
			assert.NotContains(h, h.file("2"), "shadow")
			assert.Contains(h, h.file("3"), "mark", "writes are thrown away")
			assert.NotContains(h, h.file("3"), "new")
			assert.Contains(h, h.fails(map[string]string{"Dockerfile": from + "RUN --mount=type=bind,target=/m,bind-propagation=rshared true\n"}), "Dockerfile:2")
		},
		"E16 secrets stay nowhere": func(h *hostile) {
			dir := h.context(map[string]string{
				"Dockerfile":    from + "RUN --mount=type=secret,id=f --mount=type=secret,id=e,env=TOKEN test -n \"$TOKEN\" && wc -c < /run/secrets/f > /size && ps | grep -c x || true\n",
				".dockerignore": "secret",
				"secret":        canary + "\n",
			})
			out, _, err := h.run(dir, "--secret", "id=f,src="+filepath.Join(dir, "secret"), "--secret", "id=e,src="+filepath.Join(dir, "secret"))
			require.NoError(h, err, out)
			assert.Equal(h, fmt.Sprintln(len(canary)+1), strings.TrimLeft(h.file("size"), " "))
			assert.NotContains(h, out, canary)
			assert.Empty(h, grep(h.T, h.store, canary), "in the store")
			assert.Empty(h, grep(h.T, h.tree, canary), "in the image")
			assert.NoDirExists(h, filepath.Join(h.tree, "run"), "no stub is left")
			out = h.fails(map[string]string{"Dockerfile": from + "RUN --mount=type=secret,id=e,env=TOKEN false\n", "s": canary}, "--secret", "id=e,src="+filepath.Join(dir, "secret"))
			assert.NotContains(h, out, canary)
			// Another secret is no reason to run a step again.
			require.NoError(h, os.WriteFile(filepath.Join(dir, "secret"), []byte("another\n"), 0o600))
			out, _, err = h.run(dir, "--secret", "id=f,src="+filepath.Join(dir, "secret"), "--secret", "id=e,src="+filepath.Join(dir, "secret"))
			require.NoError(h, err, out)
			assert.Contains(h, out, "CACHED")
		},
		"E17 secrets in arguments are warned of": func(h *hostile) {
			out, err := exec.Command(bin, "--root", h.store, "build", "--check", h.context(map[string]string{"Dockerfile": "FROM scratch\nARG DB_PASSWORD\nENV API_TOKEN=x\n"})).CombinedOutput()
			require.Error(h, err)
			assert.Contains(h, string(out), "SecretsUsedInArgOrEnv")
		},
		"E18 a context whose links lead out": func(h *hostile) {
			dir := h.context(map[string]string{"Dockerfile": from + "COPY d /srv/\n", "d/x": "x"})
			require.NoError(h, os.Symlink("/etc/shadow", filepath.Join(dir, "out")))
			require.NoError(h, os.Symlink("../../../../../../../../etc/shadow", filepath.Join(dir, "d/up")))
			require.NoError(h, syscall.Mkfifo(filepath.Join(dir, "d/fifo"), 0o644))
			l, err := net.Listen("unix", filepath.Join(dir, "d/socket"))
			require.NoError(h, err)
			defer l.Close()
			out, _, err := h.run(dir)
			require.NoError(h, err, out)
			link, err := os.Readlink(filepath.Join(h.tree, "srv/up"))
			require.NoError(h, err)
			assert.Equal(h, "../../../../../../../../etc/shadow", link, "a link is a link")
			assert.NoFileExists(h, filepath.Join(h.tree, "srv/socket"))
			require.NoError(h, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(from+"COPY out /srv/\n"), 0o644))
			out, _, err = h.run(dir)
			require.Error(h, err)
			assert.Contains(h, out, "Dockerfile:2")
			require.NoError(h, os.Remove(filepath.Join(dir, "Dockerfile")))
			require.NoError(h, syscall.Mkfifo(filepath.Join(dir, "Dockerfile"), 0o644))
			start := time.Now()
			_, _, err = h.run(dir)
			require.Error(h, err)
			assert.Less(h, time.Since(start), 5*time.Minute, "a fifo is not waited for")
		},
		"E19 what is ignored reaches no layer": func(h *hostile) {
			dir := h.context(map[string]string{
				"Dockerfile": from + "COPY . /all/\nCOPY s* k* /some/\n", ".dockerignore": "secret\n**/*.key\n", "secret": canary, "some": "x", "d/a.key": canary, "keep": "x",
			})
			require.NoError(h, os.Symlink("secret", filepath.Join(dir, "sneaky")))
			out, _, err := h.run(dir)
			require.Error(h, err, "the link leads to nothing: %s", out)
			require.NoError(h, os.Remove(filepath.Join(dir, "sneaky")))
			out, _, err = h.run(dir)
			require.NoError(h, err, out)
			assert.Empty(h, grep(h.T, h.tree, canary))
			assert.Empty(h, grep(h.T, h.store, canary))
		},
		"E19 a hundred thousand patterns": func(h *hostile) {
			var ignore strings.Builder
			for i := range 100_000 {
				fmt.Fprintf(&ignore, "no/such/name%d\n", i)
			}
			h.ok(map[string]string{"Dockerfile": from + "COPY . /srv/\n", ".dockerignore": ignore.String(), "a": "a"})
			assert.Equal(h, "a", h.file("srv/a"))
		},
		"E20 links and names of a stage": func(h *hostile) {
			h.ok(map[string]string{"Dockerfile": from + "RUN ln -s / /x && ln -s /../../../.. /y && mkdir /n && printf '1\\n' > \"/n/$(printf 'a\\nb')\" && echo own > /mark\nFROM busybox\nRUN ln -s / /root-link && ln -s /../../../../tmp /tmp-link\n" +
				"COPY --from=0 /x/mark /1\nCOPY --from=0 /y/mark /2\nCOPY --from=0 /n /root-link/n\nCOPY --from=0 /mark /tmp-link/escaped-mark\n"})
			assert.Equal(h, "own\nown\n", h.file("1")+h.file("2"))
			assert.Equal(h, "1\n", h.file("n/a\nb"))
			assert.Equal(h, "own\n", h.file("tmp/escaped-mark"))
			assert.NoFileExists(h, "/tmp/escaped-mark")
		},
		"E21 files from URLs": func(h *hostile) {
			var bodies atomic.Int32
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.HasPrefix(r.URL.Path, "/loop"):
					http.Redirect(w, r, "/loop"+r.URL.Path, http.StatusFound)
				case r.URL.Path == "/moved":
					http.Redirect(w, r, "/file.txt", http.StatusFound)
				case r.Header.Get("If-None-Match") == `"v1"`:
					w.WriteHeader(http.StatusNotModified)
				default:
					bodies.Add(1)
					w.Header().Set("ETag", `"v1"`)
					w.Header().Set("Content-Disposition", `attachment; filename="../../../etc/passwd"`)
					fmt.Fprint(w, "fetched\n")
				}
			}))
			defer srv.Close()
			const sum = "sha256:60a1fcf5ef5ca4dc1e5d41bd7bfa4ba7c1eaa6a3c5ff2a8e4b3b1b0ee3f3b0aa"
			h.ok(map[string]string{"Dockerfile": from + "ADD " + srv.URL + "/dir/file.txt /srv/\nADD " + srv.URL + "/moved /srv/\n"})
			assert.Equal(h, "fetched\nfetched\n", h.file("srv/file.txt")+h.file("srv/moved"))
			assert.NotContains(h, h.file("etc/passwd"), "fetched")
			before := bodies.Load()
			h.ok(map[string]string{"Dockerfile": from + "ADD " + srv.URL + "/dir/file.txt /srv/\n"})
			assert.Equal(h, before, bodies.Load(), "asked by its ETag, not fetched again")
			assert.Contains(h, h.fails(map[string]string{"Dockerfile": from + "ADD --checksum=" + sum + " " + srv.URL + "/file.txt /srv/\n"}), "checksum")
			assert.Contains(h, h.fails(map[string]string{"Dockerfile": from + "ADD " + srv.URL + "/loop /srv/\n"}), "redirect")
		},
		"E23 helpers of the rootfs are not run": func(h *hostile) {
			dir := h.context(map[string]string{
				"Dockerfile": from + "RUN for p in xz unpigz gzip zstd bzip2 tar git; do printf '#!/bin/sh\\ntouch /tmp/ran-a-helper; echo ran > /ran' > /bin/$p; rm -f /usr/bin/$p; chmod 755 /bin/$p; done\nADD a.tar.xz b.tar.zst c.tar.gz d.tar.bz2 /srv/\n",
				"src/x":      "x",
			})
			for _, kind := range []string{"xz", "zst", "gz", "bz2"} {
				require.NoError(h, os.MkdirAll(filepath.Join(dir, "s"), 0o755))
				require.NoError(h, os.WriteFile(filepath.Join(dir, "s", kind), []byte(kind), 0o644))
				name := map[string]string{"xz": "a.tar.xz", "zst": "b.tar.zst", "gz": "c.tar.gz", "bz2": "d.tar.bz2"}[kind]
				require.NoError(h, archive(kind, filepath.Join(dir, name), filepath.Join(dir, "s")))
			}
			out, _, err := h.run(dir)
			require.NoError(h, err, out)
			assert.Equal(h, "xzbz2", h.file("srv/xz")+h.file("srv/bz2"))
			assert.NoFileExists(h, filepath.Join(h.tree, "ran"))
			assert.NoFileExists(h, "/tmp/ran-a-helper")
		},
		"E24 a step without a network": func(h *hostile) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "host") }))
			defer srv.Close()
			h.ok(map[string]string{"Dockerfile": from + "RUN wget -q -O /host " + srv.URL + "\nRUN --network=none wget -q -T 2 -O /none " + srv.URL + "; ls /sys/class/net > /nets\n"})
			assert.Equal(h, "host", h.file("host"), "the default is the host's, as documented")
			assert.NoFileExists(h, filepath.Join(h.tree, "none"))
			assert.Equal(h, "lo\n", h.file("nets"))
		},
		"E31 what nobody allowed": func(h *hostile) {
			for text, want := range map[string]string{
				"# syntax=evil.example/frontend:1\nFROM busybox\nRUN true\n": "syntax",
				from + "RUN --security=insecure true\n":                      "security.insecure",
				from + "RUN --network=host true\n":                           "network.host",
			} {
				assert.Contains(h, h.fails(map[string]string{"Dockerfile": text}), want)
			}
			h.ok(map[string]string{"Dockerfile": from + "RUN grep CapEff /proc/self/status > /sandbox\nRUN --security=insecure grep CapEff /proc/self/status > /insecure\nRUN --network=host true\n"}, "--allow", "security.insecure", "--allow", "network.host")
			assert.NotEqual(h, h.file("sandbox"), h.file("insecure"))
		},
		"E32 labels are no options": func(h *hostile) {
			h.ok(map[string]string{"Dockerfile": from + "LABEL security.insecure=true network=host io.buildah.version=1 run=\"touch /labelled\" com.docker.build.entitlements=security.insecure\nRUN grep CapEff /proc/self/status > /one\nFROM busybox\nRUN grep CapEff /proc/self/status > /two\nCOPY --from=0 /one /one\n"})
			assert.Equal(h, h.file("one"), h.file("two"))
			assert.NoFileExists(h, filepath.Join(h.tree, "labelled"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(&hostile{T: t, bin: bin, bases: bs, store: filepath.Join(t.TempDir(), "store")})
		})
	}
}
