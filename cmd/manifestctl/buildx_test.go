package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestBuildxTable holds docs/buildx.md to the program.
func TestBuildxTable(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "buildx.md"))
	require.NoError(t, err)
	flags := newBuild(testEnv(nil)).Flags()
	why := map[string]string{}
	for _, r := range refusedFlags {
		why[r.name] = r.why
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, "| `--")
		if !ok {
			continue
		}
		name, says, ok := strings.Cut(rest, "` | ")
		require.True(t, ok, line)
		says = strings.ReplaceAll(strings.TrimSuffix(strings.TrimSpace(says), " |"), `\|`, "|")
		require.False(t, seen[name], name)
		seen[name] = true
		flag := flags.Lookup(name)
		if !assert.NotNil(t, flag, "--%s is in the table and no flag", name) {
			continue
		}
		reason, refused := why[name]
		switch {
		case refused:
			assert.Equal(t, "not supported: "+reason, says, name)
			assert.True(t, flag.Hidden, name)
		case strings.HasPrefix(says, "has no effect"):
			assert.Contains(t, idleFlags, name)
		default:
			assert.True(t, strings.HasPrefix(says, "works"), "%s: %s", name, says)
			assert.False(t, flag.Hidden, name)
		}
	}
	for name := range why {
		assert.True(t, seen[name], "--%s is refused and not in the table", name)
	}
	// The flags of docker buildx build 0.38.
	for name := range strings.FieldsSeq(`add-host allow annotation attest build-arg build-context builder cache-from cache-to call cgroup-parent check
		file iidfile label load metadata-file network no-cache no-cache-filter output platform policy progress provenance pull push quiet sbom secret
		shm-size ssh tag target ulimit compress isolation security-opt squash memory memory-swap cpu-shares cpu-period cpu-quota cpuset-cpus cpuset-mems rm force-rm`) {
		assert.True(t, seen[name], "buildx's --%s is not in the table", name)
	}
}

func TestRefusedFlags(t *testing.T) {
	for _, r := range refusedFlags {
		args := []string{"--" + r.name + "=x"}
		if r.switches {
			args = []string{"--" + r.name}
		}
		cmd := newBuild(testEnv(nil))
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetArgs(args)
		err := cmd.ExecuteContext(t.Context())
		require.ErrorIs(t, err, errUsage, r.name)
		assert.ErrorContains(t, err, r.why)
	}
}

func TestParseAnnotations(t *testing.T) {
	all, some, err := parseAnnotations([]string{
		"a=1", "org.example:x=y", "index,manifest[linux/arm64]:b=2", "manifest-descriptor:c=a:b=3",
	})
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"a": "1", "org.example:x": "y"}, all)
	require.Len(t, some, 3)
	assert.Equal(t, "index", some[0].Target)
	assert.Equal(t, "linux/arm64", some[1].Platform.String())
	assert.Equal(t, "a:b=3", some[2].Value)
	for _, bad := range []string{"a", "=b", "index-descriptor:a=b", "index[linux/arm64]:a=b", "manifest[x]:a=b", "index:a"} {
		_, _, err := parseAnnotations([]string{bad})
		require.ErrorIs(t, err, errUsage, bad)
	}
}
