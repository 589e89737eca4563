package differential

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// epoch is SOURCE_DATE_EPOCH of all builds; contexts are older.
const (
	epoch       = 1700000000
	contextTime = 1600000000
)

// testCase is one Dockerfile.
type testCase struct {
	topic, name string
	files       []txtar.File
	setup       []string // lines of @
}

func (c *testCase) String() string { return c.topic + "/" + c.name }

// loadCases reads testdata/*.txtar.
func loadCases(t *testing.T) []*testCase {
	t.Helper()
	topics, err := filepath.Glob("testdata/*.txtar")
	require.NoError(t, err)
	var all []*testCase
	for _, file := range topics {
		a, err := txtar.ParseFile(file)
		require.NoError(t, err)
		topic := strings.TrimSuffix(filepath.Base(file), ".txtar")
		byName := map[string]*testCase{}
		for _, f := range a.Files {
			name, rest, ok := strings.Cut(f.Name, "/")
			require.True(t, ok, "%s: %s has no case", file, f.Name)
			c := byName[name]
			if c == nil {
				c = &testCase{topic: topic, name: name}
				byName[name] = c
				all = append(all, c)
			}
			if rest == "@" {
				for line := range strings.Lines(string(f.Data)) {
					if line = strings.TrimSpace(line); line != "" {
						c.setup = append(c.setup, line)
					}
				}
				continue
			}
			c.files = append(c.files, txtar.File{Name: rest, Data: f.Data})
		}
	}
	return all
}

// has reports whether a line of @ is word.
func (c *testCase) has(word string) bool {
	for _, line := range c.setup {
		if line == word {
			return true
		}
	}
	return false
}

// flags are those for manifestctl build; $DIR in them is the context's directory.
func (c *testCase) flags(dir string) []string {
	var out []string
	for _, line := range c.setup {
		if f, ok := strings.CutPrefix(line, "flags "); ok {
			out = append(out, strings.Fields(strings.ReplaceAll(f, "$DIR", dir))...)
		}
	}
	return out
}

// write makes the context in dir.
func (c *testCase) write(t *testing.T, dir string) {
	t.Helper()
	for _, f := range c.files {
		p := filepath.Join(dir, filepath.FromSlash(f.Name))
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, f.Data, 0o644))
	}
	late := map[string]int64{}
	for _, line := range c.setup {
		w := strings.Fields(line)
		at := func(i int) string { return filepath.Join(dir, w[i]) }
		var err error
		switch w[0] {
		case "flags", "proxy", "repeat":
		case "chmod":
			var mode uint64
			if mode, err = strconv.ParseUint(w[1], 8, 32); err == nil {
				err = syscall.Chmod(at(2), uint32(mode))
			}
		case "mtime":
			late[w[2]], err = strconv.ParseInt(w[1], 10, 64)
		case "dir":
			err = os.MkdirAll(at(1), 0o755)
		case "symlink":
			require.NoError(t, os.MkdirAll(filepath.Dir(at(2)), 0o755))
			err = os.Symlink(w[1], at(2))
		case "hardlink":
			err = os.Link(at(1), at(2))
		case "fifo":
			err = syscall.Mkfifo(at(1), 0o644)
		case "tar":
			err = archive(w[1], at(2), at(3))
		case "truncate":
			var size int64
			if size, err = strconv.ParseInt(w[1], 10, 64); err == nil {
				err = os.Truncate(at(2), size)
			}
		case "append":
			var f *os.File
			if f, err = os.OpenFile(at(1), os.O_APPEND|os.O_WRONLY, 0); err == nil {
				_, err = f.WriteString(w[2])
				err = errors.Join(err, f.Close())
			}
		case "sshkey":
			err = sshKey(at(1))
		default:
			err = fmt.Errorf("unknown word %q", w[0])
		}
		require.NoError(t, err, "%s: %s", c, line)
	}
	setTimes(t, dir, late)
}

// setTimes gives every file of a context its time, deepest first.
func setTimes(t *testing.T, dir string, late map[string]int64) {
	t.Helper()
	var names []string
	require.NoError(t, filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		names = append(names, p)
		return err
	}))
	for i := len(names) - 1; i >= 0; i-- {
		rel, err := filepath.Rel(dir, names[i])
		require.NoError(t, err)
		when, ok := late[filepath.ToSlash(rel)]
		if !ok {
			when = contextTime
		}
		require.NoError(t, utimes(names[i], when))
	}
}

// archive packs the directory from into file and removes it.
func archive(compression, file, from string) error {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == from {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		link := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			if link, err = os.Readlink(p); err != nil {
				return err
			}
		}
		h, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		h.Name = path.Join(filepath.ToSlash(rel))
		if d.IsDir() {
			h.Name += "/"
		}
		h.Uid, h.Gid, h.Uname, h.Gname = 1234, 2345, "", ""
		h.ModTime = time.Unix(contextTime-1000, 0)
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			_, err = tw.Write(data)
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return err
	}
	if err := os.RemoveAll(from); err != nil {
		return err
	}
	data, err := compressed(compression, buf.Bytes())
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

func compressed(how string, data []byte) ([]byte, error) {
	var c *exec.Cmd
	switch how {
	case "none":
		return data, nil
	case "gz":
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
		return out.Bytes(), w.Close()
	case "bz2":
		c = exec.Command("bzip2", "-c")
	case "xz":
		c = exec.Command("xz", "-c")
	case "zst":
		c = exec.Command("zstd", "-q", "-c")
	default:
		return nil, fmt.Errorf("unknown compression %q", how)
	}
	c.Stdin = bytes.NewReader(data)
	return c.Output()
}

// utimes sets times of a file, of a symlink itself.
func utimes(name string, sec int64) error {
	ts := []unix.Timespec{{Sec: sec}, {Sec: sec}}
	return unix.UtimesNanoAt(unix.AT_FDCWD, name, ts, unix.AT_SYMLINK_NOFOLLOW)
}

// sshKey writes a new private key as ssh-keygen does.
func sshKey(file string) error {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}
