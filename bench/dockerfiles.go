package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/manifestctl/manifestctl/internal/oracle"
)

// dockerfileWork is one Dockerfile that all builders build. Its text has a %d that is another number in each cold run, so
// that nothing of the run before is in a cache, cache mounts included.
type dockerfileWork struct {
	name    string
	text    string
	context func(dir string) error
	base    func() error // makes the image that it needs
}

// cachedTarget is what a rebuild may take that finds everything in the cache.
const cachedTarget = 60 * time.Millisecond

// dockerfiles compares builds of Dockerfiles, cold and cached, with a BuildKit of the frontend's version and with
// Debian's buildah. manifestctl and BuildKit write an OCI archive, buildah its store.
func (b *bench) dockerfiles() error {
	stop, err := b.serveBase()
	if err != nil {
		return err
	}
	defer stop()
	ctx := context.Background()
	version, daemons, stopDaemons, err := b.buildkit(ctx, 1)
	if err != nil {
		return err
	}
	defer stopDaemons()
	var w bytes.Buffer
	fmt.Fprintf(&w, "\n## Dockerfiles\n\nCold: nothing of it in any cache. Cached: built again, nothing changed. BuildKit is %s.\n\n", version)
	fmt.Fprintln(&w, "| work | manifestctl | BuildKit | buildah | target |\n|---|---|---|---|---|")
	for _, work := range b.dockerfileWorks() {
		if !strings.Contains(work.name, b.way) {
			continue
		}
		if work.base != nil {
			if err := work.base(); err != nil {
				return err
			}
		}
		if err := b.dockerfile(ctx, &w, daemons[0], work); err != nil {
			return fmt.Errorf("%s: %w", work.name, err)
		}
	}
	b.sections = append(b.sections, w.Bytes())
	return nil
}

func (b *bench) dockerfileWorks() []dockerfileWork {
	from := "FROM " + b.registry + "/busybox:latest"
	return []dockerfileWork{
		{
			name: "1000 files copied", text: from + "\nLABEL run=%d\nCOPY . /srv/%[1]d/\n",
			context: func(dir string) error {
				for i := range 1000 {
					p := filepath.Join(dir, fmt.Sprintf("d%02d", i/50), fmt.Sprintf("f%03d", i))
					if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
						return err
					}
					if err := os.WriteFile(p, bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 2048), 0o644); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{name: "chain of 20 RUN", text: from + "\n" + strings.Repeat("RUN echo %[1]d >> /log\n", 20)},
		{
			name: "Go program, three stages, cache mount", base: b.goBase,
			text: "FROM " + b.registry + "/go:latest AS src\nWORKDIR /src\nCOPY . .\nFROM src AS build\n" +
				"RUN --mount=type=cache,id=go%[1]d,target=/root/.cache CGO_ENABLED=0 go build -o /hello -ldflags \"-X main.run=%[1]d\" .\n" +
				from + "\nCOPY --from=build /hello /bin/hello\nENTRYPOINT [\"/bin/hello\"]\n",
			context: func(dir string) error {
				err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module hello\n\ngo 1.26\n"), 0o644)
				if err != nil {
					return err
				}
				return os.WriteFile(filepath.Join(dir, "main.go"), []byte("package main\n\nimport \"fmt\"\n\nvar run string\n\nfunc main() { fmt.Println(\"hello\", run) }\n"), 0o644)
			},
		},
	}
}

// dockerfile measures one work with all builders in turn and writes two lines of the table.
func (b *bench) dockerfile(ctx context.Context, w *bytes.Buffer, daemon *oracle.Daemon, work dockerfileWork) error {
	dir := filepath.Join(b.dir, "dockerfile-"+strings.Fields(work.name)[0])
	if err := os.MkdirAll(filepath.Join(dir, "context"), 0o755); err != nil {
		return err
	}
	if work.context != nil {
		if err := work.context(filepath.Join(dir, "context")); err != nil {
			return err
		}
	}
	file := filepath.Join(dir, "Dockerfile")
	builders := []func() *exec.Cmd{
		func() *exec.Cmd {
			return b.ours("-f", file, "--verify=off", "-o", "type=oci,dest="+filepath.Join(dir, "ours.tar"), filepath.Join(dir, "context"))
		},
		func() *exec.Cmd {
			return daemon.Command(ctx, "build", "--progress", "plain", "--frontend", "dockerfile.v0",
				"--local", "context="+filepath.Join(dir, "context"), "--local", "dockerfile="+dir,
				"--output", "type=oci,dest="+filepath.Join(dir, "buildkit.tar"))
		},
		func() *exec.Cmd {
			return b.buildah("build", "--layers", "--tls-verify=false", "--network", "host", "-f", file, "-t", "bench", filepath.Join(dir, "context"))
		},
	}
	cold, cached := make([][]time.Duration, len(builders)), make([][]time.Duration, len(builders))
	for i := range min(b.runs, 7) + 1 {
		if err := os.WriteFile(file, fmt.Appendf(nil, work.text, i+1), 0o644); err != nil {
			return err
		}
		for j, make := range builders {
			for _, into := range []*[]time.Duration{&cold[j], &cached[j]} {
				start := time.Now()
				if err := command(make()); err != nil {
					return err
				}
				if i > 0 { // the first run pulls bases
					*into = append(*into, time.Since(start))
				}
			}
		}
	}
	fmt.Fprintf(w, "| %s, cold | %s | %s | %s | faster than both |\n", work.name, ms(median(cold[0])), ms(median(cold[1])), ms(median(cold[2])))
	fmt.Fprintf(w, "| %s, cached | %s | %s | %s | faster than both, at most %s |\n", work.name, ms(median(cached[0])), ms(median(cached[1])), ms(median(cached[2])), ms(cachedTarget))
	return nil
}

// goBase pushes busybox with this machine's Go.
func (b *bench) goBase() error {
	root := line("go", "env", "GOROOT")
	dir := filepath.Join(b.dir, "gobase")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file := filepath.Join(dir, "Dockerfile")
	text := "FROM " + b.registry + "/busybox:latest\nCOPY --exclude=test --exclude=doc --exclude=api --exclude=misc . /usr/local/go/\nENV PATH=/usr/local/go/bin:/bin HOME=/root GOFLAGS=-mod=mod GOTOOLCHAIN=local\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	return command(b.ours("-f", file, "--verify=off", "-t", b.registry+"/go:latest", "--push", root))
}
