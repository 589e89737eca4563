//go:build unix

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func init() {
	children["put"] = func(ctx context.Context, root, arg string) error {
		s, err := Open(ctx, root, Options{})
		if err != nil {
			return err
		}
		defer s.Close()
		for i := range 20 {
			if _, err := s.Put(ctx, "x", bytes.NewReader(random(uint64(i), 100_000))); err != nil {
				return err
			}
		}
		return nil
	}
	children["ref"] = func(ctx context.Context, root, arg string) error {
		s, err := Open(ctx, root, Options{})
		if err != nil {
			return err
		}
		defer s.Close()
		d, err := s.PutBytes(ctx, "x", []byte(arg))
		if err != nil {
			return err
		}
		return s.SetRef(ctx, arg, d)
	}
	children["build"] = buildLoop
	children["collect"] = func(ctx context.Context, root, arg string) error {
		s, err := Open(ctx, root, Options{})
		if err != nil {
			return err
		}
		defer s.Close()
		for end := time.Now().Add(duration(arg)); time.Now().Before(end); {
			if _, err := s.GC(ctx, GCOptions{Cache: rand.IntN(2) == 0}); err != nil {
				return err
			}
		}
		return nil
	}
	children["crash"] = func(ctx context.Context, root, arg string) error {
		for {
			if err := buildLoop(ctx, root, "20ms"); err != nil {
				return err
			}
			s, err := Open(ctx, root, Options{})
			if err != nil {
				return err
			}
			if _, err := s.GC(ctx, GCOptions{Cache: rand.IntN(4) == 0}); err != nil {
				return err
			}
			if err := s.Close(); err != nil {
				return err
			}
		}
	}
	children["hold"] = func(ctx context.Context, root, arg string) error {
		s, err := Open(ctx, root, Options{})
		if err != nil {
			return err
		}
		if _, err := s.PutBytes(ctx, "x", []byte(arg)); err != nil {
			return err
		}
		w, err := s.Ingest(ctx)
		if err != nil {
			return err
		}
		if _, err := w.Write(make([]byte, bufferSize+1)); err != nil { // more than it keeps without a file
			return err
		}
		fmt.Println("ready")
		select {}
	}
}

func duration(arg string) time.Duration {
	d, err := time.ParseDuration(arg)
	if err != nil {
		panic(err)
	}
	return d
}

// buildLoop does what builds do: steps that are cached or made, a manifest, a
// tag, and reading all of it back.
func buildLoop(ctx context.Context, root, arg string) error {
	for end := time.Now().Add(duration(arg)); time.Now().Before(end); {
		s, err := Open(ctx, root, Options{})
		if err != nil {
			return err
		}
		if err := buildOnce(ctx, s); err != nil {
			return errors.Join(err, s.Close())
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	return nil
}

func buildOnce(ctx context.Context, s *Store) error {
	var layers []ocispec.Descriptor
	for range 3 {
		n := rand.Uint64N(12) // few, so that processes meet
		key := "step" + strconv.FormatUint(n, 10)
		r, err := s.GetRecord("cache", key)
		if err == nil {
			size, err := s.Stat(r.Blobs[0])
			if err != nil {
				return fmt.Errorf("a recorded blob: %w", err)
			}
			layers = append(layers, ocispec.Descriptor{Digest: r.Blobs[0], Size: size})
			continue
		}
		if !errors.Is(err, ErrNotFound) {
			return err
		}
		d, err := s.Put(ctx, "layer", bytes.NewReader(random(n, 5000+int(n))))
		if err != nil {
			return err
		}
		layers = append(layers, d)
		if err := s.PutRecord("cache", key, Record{Data: []byte(key), Blobs: []digest.Digest{d.Digest}}); err != nil {
			return err
		}
	}
	config, err := s.PutBytes(ctx, ocispec.MediaTypeImageConfig, []byte(`{}`))
	if err != nil {
		return err
	}
	m, err := s.PutBytes(ctx, ocispec.MediaTypeImageManifest, manifestJSON(config, layers...))
	if err != nil {
		return err
	}
	name := "app:" + strconv.Itoa(rand.IntN(6))
	if err := s.SetRef(ctx, name, m); err != nil {
		return err
	}
	for _, d := range append(layers, config, m) {
		if _, err := get(ctx, s, d); err != nil {
			return fmt.Errorf("reading back: %w", err)
		}
	}
	if rand.IntN(3) == 0 {
		if err := s.DeleteRef(ctx, name); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}

// startAll starts processes; the returned function waits for all of them.
func startAll(t *testing.T, cmds ...*exec.Cmd) (wait func()) {
	t.Helper()
	outs := make([]bytes.Buffer, len(cmds))
	for i, c := range cmds {
		c.Stdout, c.Stderr = &outs[i], &outs[i]
		require.NoError(t, c.Start())
	}
	return func() {
		for i, c := range cmds {
			assert.NoError(t, c.Wait(), "%s", outs[i].String())
		}
	}
}

func TestD08_ProcessesWriteTheSameBlobs(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	var cmds []*exec.Cmd
	for range 4 {
		cmds = append(cmds, child(t, "put", root, ""))
	}
	startAll(t, cmds...)()
	s := open(t, root)
	assert.Len(t, files(t, s.path(blobsDir)), 20)
	assert.Empty(t, files(t, s.path(ingestDir)))
	assert.Len(t, files(t, s.path(leasesDir)), 1, "ours")
	sound(t, s)
}

func TestD09_ProcessesSetRefs(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	var cmds []*exec.Cmd
	for i := range 20 {
		cmds = append(cmds, child(t, "ref", root, fmt.Sprintf("app:%02d", i)))
	}
	startAll(t, cmds...)()
	s := open(t, root)
	refs, err := s.Refs()
	require.NoError(t, err)
	assert.Len(t, refs, 20)
	data, err := readSmall(s.path(indexFile))
	require.NoError(t, err)
	assert.Equal(t, 20, strings.Count(string(data), "org.opencontainers.image.ref.name"))
	sound(t, s)
}

func TestD10_CollectionsBesideBuilds(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	long := "1500ms"
	if d := os.Getenv("STORE_TEST_SOAK"); d != "" { // make soak
		long = d
	}
	startAll(t,
		child(t, "build", root, long), child(t, "build", root, long), child(t, "build", root, long),
		child(t, "collect", root, long), child(t, "collect", root, long),
	)()
	s := open(t, root)
	sound(t, s)
	assert.Empty(t, files(t, s.path(damagedDir)))
}

// A process that is killed at any instant leaves a store in which nothing is
// wrong, and in which the next one works.
func TestD06_KilledAtRandomMoments(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	for round := range 40 {
		var out [2]bytes.Buffer
		cmds := []*exec.Cmd{child(t, "crash", root, ""), child(t, "crash", root, "")}
		for i, c := range cmds {
			c.Stderr = &out[i]
			require.NoError(t, c.Start())
		}
		time.Sleep(20*time.Millisecond + time.Duration(rand.IntN(60))*time.Millisecond)
		for _, c := range cmds {
			require.NoError(t, c.Process.Kill())
			_ = c.Wait()
		}
		require.Empty(t, out[0].String()+out[1].String(), "round %d", round)
		s, err := Open(t.Context(), root, Options{})
		require.NoError(t, err)
		sound(t, s)
		require.NoError(t, buildOnce(t.Context(), s))
		if round%4 == 0 {
			_, err = s.GC(t.Context(), GCOptions{})
			require.NoError(t, err)
			assert.Empty(t, files(t, s.path(ingestDir)))
		}
		require.NoError(t, s.Close())
		if t.Failed() {
			return
		}
	}
}

func TestD12_LocksDieWithTheirProcess(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	cmd := child(t, "hold", root, "held content")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = out.Read(make([]byte, 1))
	require.NoError(t, err)

	s := open(t, root)
	r, err := s.GC(t.Context(), GCOptions{})
	require.NoError(t, err)
	assert.Zero(t, r)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	found, err := s.Check(t.Context(), CheckOptions{})
	require.NoError(t, err)
	assert.Len(t, found, 2, "an unfinished blob and a lease")
	sound(t, s)
	r, err = s.GC(t.Context(), GCOptions{})
	require.NoError(t, err)
	assert.Equal(t, 1, r.Blobs)
	assert.Equal(t, 1, r.Ingests)
	assert.Len(t, files(t, s.path(leasesDir)), 1)
	found, err = s.Check(t.Context(), CheckOptions{})
	require.NoError(t, err)
	assert.Empty(t, found)
}

// A collection gets its turn though users come and go without a pause.
func TestGCIsNotStarved(t *testing.T) {
	s := fresh(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 32 {
		go func() {
			for ctx.Err() == nil {
				if leave, err := s.using(ctx); err == nil {
					time.Sleep(time.Duration(rand.IntN(5000)) * time.Microsecond)
					leave()
				}
			}
		}()
	}
	within, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	for range 10 {
		_, err := s.GC(within, GCOptions{})
		require.NoError(t, err)
	}
}
