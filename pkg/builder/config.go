package builder

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gofrs/flock"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// Config is where builders are kept. It is safe for concurrent use, by other processes too.
type Config struct {
	Dir    string // ours: builders/NAME.json, and current
	Buildx string // buildx's: instances/NAME, and current; "" is none
}

// currentFile holds the name of the builder in use.
const currentFile = "current-builder"

func (c Config) file(name string) string { return filepath.Join(c.Dir, "builders", name+".json") }

// local is the builder that is always there.
func local() Builder {
	return Builder{Name: Local, Driver: DriverLocal, Nodes: []Node{{Name: Local, Endpoint: Local}}}
}

// List gives all builders: the local one, ours, then those of buildx whose name is not taken. What cannot be read is in
// the error, beside the others.
func (c Config) List() ([]Builder, error) {
	out := []Builder{local()}
	var errs []error
	entries, err := os.ReadDir(filepath.Join(c.Dir, "builders"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, fmt.Errorf("listing builders: %w", err))
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || CheckName(name) != nil {
			continue
		}
		b, err := c.own(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, b)
	}
	theirs, err := c.buildx()
	errs = append(errs, err)
	for _, b := range theirs {
		if !slices.ContainsFunc(out, func(o Builder) bool { return o.Name == b.Name }) {
			out = append(out, b)
		}
	}
	return out, errors.Join(errs...)
}

// Get gives the builder of a name: ours, else buildx's.
func (c Config) Get(name string) (Builder, error) {
	if name == Local {
		return local(), nil
	}
	if err := CheckName(name); err != nil {
		return Builder{}, err
	}
	b, err := c.own(name)
	if err == nil || !errors.Is(err, ErrNotFound) {
		return b, err
	}
	theirs, err := c.buildxInstance(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Builder{}, fmt.Errorf("%w: %q", ErrNotFound, name)
	}
	return theirs, err
}

// Current is the name of the builder that [Config.Use] chose, else [Local].
func (c Config) Current() (string, error) {
	raw, err := os.ReadFile(filepath.Join(c.Dir, currentFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Local, nil
	}
	if err != nil {
		return "", fmt.Errorf("reading which builder is in use: %w", err)
	}
	name := strings.TrimSpace(string(raw))
	if name == "" {
		return Local, nil
	}
	return name, nil
}

// Use makes name the builder of builds that name none.
func (c Config) Use(name string) error {
	return c.locked(func() error {
		if _, err := c.Get(name); err != nil {
			return err
		}
		return replace(filepath.Join(c.Dir, currentFile), []byte(name+"\n"))
	})
}

// own reads a builder of ours.
func (c Config) own(name string) (Builder, error) {
	raw, err := os.ReadFile(c.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return Builder{}, fmt.Errorf("%w: %q", ErrNotFound, name)
	}
	if err != nil {
		return Builder{}, fmt.Errorf("reading builder %q: %w", name, err)
	}
	b, err := decode(raw)
	if err != nil {
		return Builder{}, fmt.Errorf("%s: %w", c.file(name), err)
	}
	b.Name = name
	return b, nil
}

// decode reads the file of a builder.
func decode(raw []byte) (Builder, error) {
	var b Builder
	if err := json.Unmarshal(raw, &b); err != nil {
		return Builder{}, fmt.Errorf("%w: %v", ErrInvalid, err) //nolint:errorlint // the decoder's errors are no kinds
	}
	if len(b.Nodes) == 0 {
		return Builder{}, fmt.Errorf("%w: it has no nodes", ErrInvalid)
	}
	for i := range b.Nodes {
		n := &b.Nodes[i]
		if err := CheckName(n.Name); err != nil {
			return Builder{}, err
		}
		if !n.IsLocal() {
			if err := CheckEndpoint(n.Endpoint); err != nil {
				return Builder{}, err
			}
		}
		var err error
		if len(n.Declared) > 0 {
			if n.Platforms, err = platform.ParseList(n.Declared...); err != nil {
				return Builder{}, err
			}
		}
	}
	return b, nil
}

// write replaces the file of a builder.
func (c Config) write(b Builder) error {
	for i := range b.Nodes {
		n := &b.Nodes[i]
		n.Declared = nil
		for _, p := range n.Platforms {
			n.Declared = append(n.Declared, p.String())
		}
	}
	raw, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return fmt.Errorf("writing builder %q: %w", b.Name, err)
	}
	return replace(c.file(b.Name), append(raw, '\n'))
}

// locked calls f while no other process changes builders.
func (c Config) locked(f func() error) (err error) {
	if err := os.MkdirAll(filepath.Join(c.Dir, "builders"), 0o700); err != nil {
		return fmt.Errorf("making the directory of builders: %w", err)
	}
	lock := flock.New(filepath.Join(c.Dir, "builders.lock"))
	if err := lock.Lock(); err != nil {
		return fmt.Errorf("locking the builders: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	return f()
}

// replace writes a file whole or not at all.
func replace(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-") // 0600
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("writing %s: %w", path, err), os.Remove(f.Name()))
		}
	}()
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
