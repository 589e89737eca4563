package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// childEnv makes the test binary act as one of children instead of running tests.
const childEnv = "STORE_TEST_CHILD"

// children are the programs that tests start as other processes: they get the
// store's directory and one more argument.
var children = map[string]func(ctx context.Context, root, arg string) error{}

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		if err := children[name](context.Background(), os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child prepares another process.
func child(t *testing.T, name, root, arg string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	require.Contains(t, children, name)
	cmd := exec.Command(self, root, arg)
	cmd.Env = append(os.Environ(), childEnv+"="+name)
	return cmd
}

func run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func open(t *testing.T, root string) *Store {
	t.Helper()
	s, err := Open(t.Context(), root, Options{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	return s
}

func fresh(t *testing.T) *Store {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), "store"))
}

func put(t *testing.T, s *Store, content string) ocispec.Descriptor {
	t.Helper()
	d, err := s.Put(t.Context(), "text/plain", strings.NewReader(content))
	require.NoError(t, err)
	return d
}

func get(ctx context.Context, s *Store, desc ocispec.Descriptor) (string, error) {
	rc, err := s.Open(ctx, desc)
	if err != nil {
		return "", err
	}
	defer rc.Close()
	data, err := io.ReadAll(rc)
	return string(data), err
}

func exists(s *Store, d digest.Digest) bool {
	_, err := os.Lstat(s.Path(d))
	return err == nil
}

// random is n bytes that are the same for the same seed.
func random(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24), 7})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

// files lists what is below dir, without directories.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	require.NoError(t, filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			rel, _ := filepath.Rel(dir, p)
			out = append(out, rel)
		}
		return err
	}))
	return out
}

// sound fails the test unless a check that reads everything finds no harm.
func sound(t *testing.T, s *Store) {
	t.Helper()
	found, err := s.Check(t.Context(), CheckOptions{ReadData: true})
	require.NoError(t, err)
	for _, f := range found {
		if !f.Harmless {
			t.Errorf("finding: %s", f)
		}
	}
}

// endless never ends and never repeats.
type endless struct{ n uint64 }

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, random(e.n, min(len(p), 4096)))
	e.n++
	return n, nil
}

func manifestOf(t *testing.T, s *Store, layers ...ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	config, err := s.PutBytes(t.Context(), ocispec.MediaTypeImageConfig, []byte(`{"config":{}}`))
	require.NoError(t, err)
	d, err := s.PutBytes(t.Context(), ocispec.MediaTypeImageManifest, manifestJSON(config, layers...))
	require.NoError(t, err)
	return d
}

func manifestJSON(config ocispec.Descriptor, layers ...ocispec.Descriptor) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[`,
		ocispec.MediaTypeImageManifest, config.MediaType, config.Digest, config.Size)
	for i, l := range layers {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"mediaType":%q,"digest":%q,"size":%d}`, ocispec.MediaTypeImageLayer, l.Digest, l.Size)
	}
	b.WriteString("]}")
	return b.Bytes()
}

// damage changes a file as a bad disk does: the file stays the same one.
func damage(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.Chmod(path, 0o600))
	fi, err := os.Stat(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, change(data), fi.Mode()))
}

func objects(found []Finding) []string {
	out := []string{}
	for _, f := range found {
		out = append(out, f.Object)
	}
	return out
}
