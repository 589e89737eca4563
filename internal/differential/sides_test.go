package differential

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/oracle"
)

// proxies are the variables of cases with "proxy".
var proxies = []string{
	"HTTP_PROXY=http://proxy.invalid:3128", "https_proxy=http://proxy.invalid:3129", "NO_PROXY=localhost,.invalid",
	"FTP_PROXY=http://proxy.invalid:21", "ALL_PROXY=socks5://proxy.invalid:1080",
}

// builder is one side of the comparison.
type builder interface {
	// build builds the context dir into an OCI archive and returns what was printed.
	build(ctx context.Context, c *testCase, dir, dest string) (output string, err error)
}

// ours is manifestctl with a new store for each case.
type ours struct {
	bin   string
	bases *bases
}

func (o *ours) build(ctx context.Context, c *testCase, dir, dest string) (string, error) {
	args := []string{
		"--root", dest + ".store", "build", "--progress", "plain", "--provenance=false", "--verify=off",
		"--output", "type=oci,rewrite-timestamp=true,dest=" + dest,
	}
	for _, name := range slices.Sorted(maps.Keys(o.bases.digests)) {
		args = append(args, "--build-context", name+"="+o.bases.reference(name, filepath.Join(o.bases.dir, name)))
	}
	args = append(args, c.flags(dir)...)
	cmd := exec.CommandContext(ctx, o.bin, append(args, dir)...)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.Itoa(epoch))
	if c.has("proxy") {
		cmd.Env = append(cmd.Env, proxies...)
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// buildkit is daemons that all cases share; each does one at a time.
type buildkit struct {
	idle  chan *oracle.Daemon
	bases *bases
}

func (b *buildkit) build(ctx context.Context, c *testCase, dir, dest string) (_ string, err error) {
	daemon := <-b.idle
	defer func() {
		// It would update this context for the next case, and the times of directories would be those of the update.
		prune, perr := daemon.Command(ctx, "prune", "--all", "--filter", "type==source.local").CombinedOutput()
		if perr != nil {
			err = errors.Join(err, fmt.Errorf("pruning: %w\n%s", perr, prune))
		}
		b.idle <- daemon
	}()
	args := []string{
		"build", "--progress", "plain", "--frontend", "dockerfile.v0",
		"--local", "context=" + dir, "--local", "dockerfile=" + dir,
		"--opt", "build-arg:SOURCE_DATE_EPOCH=" + strconv.Itoa(epoch),
		"--output", "type=oci,rewrite-timestamp=true,dest=" + dest,
	}
	for _, name := range slices.Sorted(maps.Keys(b.bases.digests)) {
		args = append(args, "--oci-layout", name+"="+filepath.Join(b.bases.dir, name),
			"--opt", "context:"+name+"="+b.bases.reference(name, name))
	}
	if c.has("proxy") {
		for _, kv := range proxies {
			args = append(args, "--opt", "build-arg:"+kv)
		}
	}
	more, err := buildctlFlags(c.flags(dir))
	if err != nil {
		return "", err
	}
	out, err := daemon.Command(ctx, append(args, more...)...).CombinedOutput()
	return string(out), err
}

// buildctlFlags says flags of docker buildx build as buildctl wants them.
func buildctlFlags(flags []string) ([]string, error) {
	var out []string
	opt := func(k, v string) { out = append(out, "--opt", k+"="+v) }
	joined := map[string][]string{}
	for i := 0; i < len(flags); i++ {
		name, value, ok := strings.Cut(flags[i], "=")
		if !ok && name != "--no-cache" && name != "--pull" {
			if i++; i == len(flags) {
				return nil, fmt.Errorf("%s wants a value", name)
			}
			value = flags[i]
		}
		switch name {
		case "--build-arg":
			k, v, _ := strings.Cut(value, "=")
			opt("build-arg:"+k, v)
		case "--label":
			k, v, _ := strings.Cut(value, "=")
			opt("label:"+k, v)
		case "--target":
			opt("target", value)
		case "--shm-size":
			mib, err := strconv.Atoi(strings.TrimSuffix(value, "m"))
			if err != nil {
				return nil, err
			}
			opt("shm-size", strconv.Itoa(mib<<20))
		case "--network":
			opt("force-network-mode", value)
		case "--no-cache":
			opt("no-cache", "")
		case "--no-cache-filter":
			opt("no-cache", value)
		case "--add-host":
			joined["add-hosts"] = append(joined["add-hosts"], strings.Replace(value, ":", "=", 1))
		case "--ulimit":
			joined["ulimit"] = append(joined["ulimit"], value)
		case "--secret", "--ssh", "--allow":
			out = append(out, name, value)
		case "--build-context":
			k, v, _ := strings.Cut(value, "=")
			out = append(out, "--local", k+"="+v)
			opt("context:"+k, "local:"+k)
		case "-f", "--file":
			opt("filename", filepath.Base(value))
		default:
			return nil, fmt.Errorf("no equivalent of %s", name)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(joined)) {
		opt(k, strings.Join(joined[k], ","))
	}
	return out, nil
}

// answer builds a case and describes the outcome.
func answer(t *testing.T, b builder, bs *bases, c *testCase) (text, output string) {
	t.Helper()
	dir := t.TempDir()
	context := filepath.Join(dir, "context")
	require.NoError(t, os.Mkdir(context, 0o755))
	c.write(t, context)
	dest := filepath.Join(dir, "image.tar")
	out, err := b.build(t.Context(), c, context, dest)
	if err == nil && c.has("repeat") {
		out, err = b.build(t.Context(), c, context, dest)
	}
	if err != nil {
		return failure(out), out
	}
	text, err = describe(dest, bs.layers)
	require.NoError(t, err, "reading the image of %s", c)
	return text, out
}
