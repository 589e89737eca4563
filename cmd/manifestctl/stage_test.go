package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// stagePlatforms are those of the processes of TestStage_processes.
var stagePlatforms = strings.Fields("linux/amd64 linux/arm64 linux/arm/v7 linux/arm/v6 linux/386 linux/ppc64le linux/s390x linux/riscv64 linux/mips64le linux/loong64")

// TestStage_processes: ten machines stage a platform each and two merge them, in any order, killed at any moment and run
// again. The tag is the complete index, that of one machine, or none. MANIFESTCTL_SOAK=1 is 100 rounds.
func TestStage_processes(t *testing.T) {
	for name, start := range map[string]func(*testing.T) http.Handler{"serve": servedRegistry, "docker-registry": debianHandler} {
		t.Run(name, func(t *testing.T) {
			h := start(t)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(rand.N(5 * time.Millisecond))
				h.ServeHTTP(w, r)
			}))
			defer srv.Close()
			rounds := 2
			if testing.Short() || name != "serve" {
				rounds = 1
			}
			if n, err := strconv.Atoi(os.Getenv("MANIFESTCTL_SOAK")); err == nil {
				rounds = max(n, 100)
			}
			stageByProcesses(t, strings.TrimPrefix(srv.URL, "http://"), rounds)
		})
	}
}

func stageByProcesses(t *testing.T, host string, rounds int) {
	t.Helper()
	path, err := exec.LookPath("manifestctl")
	require.NoError(t, err)
	dir := t.TempDir()
	platforms := strings.Join(stagePlatforms, ",")
	var killed atomic.Int64
	for round := range rounds {
		project := filepath.Join(dir, fmt.Sprintf("context%d", round))
		require.NoError(t, os.Mkdir(project, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(project, "rootfs.yaml"), fmt.Appendf(nil,
			"version: 1\nfrom: scratch\nsteps:\n  - files: [{path: /shared, content: %q}]\n  - files: [{path: /own, content: \"${TARGETARCH}\", expand: true}]\n", fmt.Sprint(round)), 0o600))
		tag := fmt.Sprintf("%s/app:r%d", host, round)
		id := fmt.Sprintf("run-%d", round)
		var jobs [][]string
		for i, p := range stagePlatforms {
			jobs = append(jobs, []string{"--root", filepath.Join(dir, fmt.Sprintf("store%d", i)), "build", "-q", "--platform", p, "--stage", id, "-t", tag, "--push", project})
		}
		merge := []string{"merge", "-q", "--stage", id, "--expect", platforms, "--wait", "10m", "-t", tag}
		jobs = append(jobs, merge, merge)
		rand.Shuffle(len(jobs), func(i, j int) { jobs[i], jobs[j] = jobs[j], jobs[i] })
		stop := watchTag(t, tag)
		g, ctx := errgroup.WithContext(t.Context()) // one that fails ends those who would wait for it
		g.SetLimit(4)                               // the machine is one, and small
		if round%2 == 0 {
			g.SetLimit(len(jobs))
		}
		for _, args := range jobs {
			if len(args) == len(merge) && round%2 == 1 {
				continue // below: it would wait in the place of what it waits for
			}
			g.Go(func() error { return restarted(ctx, path, args, &killed) })
		}
		require.NoError(t, g.Wait())
		if round%2 == 1 {
			g, ctx := errgroup.WithContext(t.Context())
			g.Go(func() error { return restarted(ctx, path, merge, &killed) })
			g.Go(func() error { return restarted(ctx, path, merge, &killed) })
			require.NoError(t, g.Wait())
		}
		seen := stop()
		assert.LessOrEqual(t, seen, 1, "an incomplete index was there")
		whole := exec.Command(path, "--root", filepath.Join(dir, "whole"), "build", "-q", "--platform", platforms, "-t", host+"/whole:1", "--push", project)
		want, err := whole.Output()
		require.NoError(t, err)
		got, err := exec.Command(path, "digest", tag).Output()
		require.NoError(t, err)
		require.Equal(t, string(want), string(got))
		if t.Failed() {
			return
		}
		if round%10 == 9 || rounds < 10 {
			t.Logf("round %d: %d processes ended by a kill so far", round, killed.Load())
		}
	}
}

// restarted runs a command, kills it three times at some moment, and lets it end.
func restarted(ctx context.Context, path string, args []string, killed *atomic.Int64) error {
	for n := 0; ; n++ {
		cmd := exec.CommandContext(ctx, path, args...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			return err
		}
		kill := time.AfterFunc(rand.N(100*time.Millisecond<<rand.N(5)), func() { _ = cmd.Process.Kill() }) // it may have ended
		if n >= 3 {
			kill.Stop()
		}
		err := cmd.Wait()
		kill.Stop()
		var exit *exec.ExitError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !errors.As(err, &exit) || exit.ExitCode() != -1: // -1: killed
			return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, stderr.String())
		}
		killed.Add(1)
	}
}
