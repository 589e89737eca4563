package mirrors

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/manifestctl/manifestctl/pkg/ref"
)

// maxFile is the largest file that is read, in bytes.
const maxFile = 4 << 20

// Options says where the files are. The zero value is where podman looks.
type Options struct {
	File   string // this one alone: --registries-conf; CONTAINERS_REGISTRIES_CONF does the same
	System string // the machine's directory; "": /etc/containers
	Getenv func(string) string
}

// Load reads the files: the user's registries.conf with its drop-ins if there is one, else the machine's with the drop-ins
// of both (containers-registries.conf.d(5)). Later ones override fields, and registries of the same prefix.
func Load(o Options) (*Config, error) {
	if o.Getenv == nil {
		o.Getenv = os.Getenv //nolint:forbidigo // where the files are is named by the environment
	}
	if o.System == "" && runtime.GOOS != "windows" {
		o.System = "/etc/containers"
	}
	c := &Config{}
	if o.File == "" {
		o.File = o.Getenv("CONTAINERS_REGISTRIES_CONF")
	}
	if o.File != "" {
		return c, c.add(o.File, true)
	}
	var user string
	if dir := o.Getenv("XDG_CONFIG_HOME"); dir != "" {
		user = filepath.Join(dir, "containers")
	} else if home := o.Getenv("HOME"); home != "" {
		user = filepath.Join(home, ".config", "containers")
	}
	var files []string
	dirs := []string{o.System, user}
	if _, err := os.Stat(filepath.Join(user, "registries.conf")); user != "" && err == nil {
		dirs = []string{user}
	}
	for i, dir := range dirs {
		if dir == "" {
			continue
		}
		if i == 0 {
			files = append(files, filepath.Join(dir, "registries.conf"))
		}
		drops, err := filepath.Glob(filepath.Join(dir, "registries.conf.d", "*.conf")) // sorted
		if err != nil {
			return nil, err
		}
		files = append(files, drops...)
	}
	for _, f := range files {
		if err := c.add(f, false); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// add reads one file over what is there.
func (c *Config) add(path string, must bool) error {
	f, err := os.Open(path) //nolint:gosec // the user's or the machine's own
	if !must && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading registries.conf: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return fmt.Errorf("reading registries.conf: %w", err)
	}
	if len(data) > maxFile {
		return fmt.Errorf("%w: %s is longer than %d bytes", ErrInvalid, path, maxFile)
	}
	if err := c.merge(data); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrInvalid, path, err)
	}
	return nil
}

// document is the file. What it holds besides is for other programs.
type document struct {
	Search  []string          `toml:"unqualified-search-registries"`
	Mode    string            `toml:"short-name-mode"`
	Helpers []string          `toml:"credential-helpers"`
	Aliases map[string]string `toml:"aliases"`

	Registry []table `toml:"registry"`

	// Version 1 of the format.
	Registries map[string]struct {
		Registries []string `toml:"registries"`
	} `toml:"registries"`
}

// table is [[registry]].
type table struct {
	Prefix             string `toml:"prefix"`
	Location           string `toml:"location"`
	Insecure           bool   `toml:"insecure"`
	Blocked            bool   `toml:"blocked"`
	MirrorByDigestOnly bool   `toml:"mirror-by-digest-only"`
	Mirror             []struct {
		Location string `toml:"location"`
		Insecure bool   `toml:"insecure"`
		Pull     string `toml:"pull-from-mirror"`
	} `toml:"mirror"`
}

// Parse reads one file.
func Parse(data []byte) (*Config, error) {
	c := &Config{}
	if err := c.merge(data); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return c, nil
}

func (c *Config) merge(data []byte) error {
	var d document
	if err := toml.Unmarshal(data, &d); err != nil {
		var at *toml.DecodeError
		if errors.As(err, &at) {
			row, col := at.Position()
			return fmt.Errorf("line %d, column %d: %w", row, col, err)
		}
		return err
	}
	if err := d.version1(); err != nil {
		return err
	}
	if d.Search != nil {
		c.search = nil
		for _, host := range d.Search {
			host = strings.TrimRight(host, "/")
			if !isHost(host) {
				return fmt.Errorf("unqualified-search-registries: %q is not HOST or HOST:PORT", host)
			}
			c.search = append(c.search, strings.ToLower(host))
		}
	}
	switch d.Mode {
	case "":
	case "disabled", "permissive", "enforcing":
		c.mode = d.Mode
	default:
		return fmt.Errorf("short-name-mode %q: want disabled, permissive or enforcing", d.Mode)
	}
	if d.Helpers != nil {
		c.helpers = slices.DeleteFunc(d.Helpers, func(h string) bool { return h == "containers-auth.json" })
	}
	for _, name := range slices.Sorted(maps.Keys(d.Aliases)) {
		if err := c.alias(name, d.Aliases[name]); err != nil {
			return err
		}
	}
	return c.addRegistries(&d)
}

// alias adds one; an empty value takes one away.
func (c *Config) alias(name, full string) error {
	if bare, tail := cutTail(name); name == "" || isQualified(bare) || tail != "" {
		return fmt.Errorf("alias %q: want a short name without tag", name)
	}
	if full == "" {
		delete(c.aliases, name)
		return nil
	}
	if bare, tail := cutTail(full); tail != "" || !isQualified(bare) {
		return fmt.Errorf("alias %q = %q: want HOST/REPOSITORY without tag", name, full)
	}
	if _, err := ref.Parse(full); err != nil {
		return fmt.Errorf("alias %q: %w", name, err)
	}
	if c.aliases == nil {
		c.aliases = map[string]string{}
	}
	c.aliases[name] = full
	return nil
}

func (c *Config) addRegistries(d *document) error {
	for i, r := range d.Registry {
		e := entry{prefix: strings.TrimRight(r.Prefix, "/"), location: strings.TrimRight(r.Location, "/"), insecure: r.Insecure, blocked: r.Blocked}
		if e.prefix == "" {
			e.prefix = e.location
		}
		if e.prefix == "" {
			return fmt.Errorf("registry %d has neither prefix nor location", i+1)
		}
		wildcard := strings.HasPrefix(e.prefix, "*.")
		if e.location == "" && !wildcard {
			e.location = e.prefix
		}
		example := e.prefix
		if wildcard {
			example = "any" + e.prefix[1:]
		}
		if err := checkPlace("prefix", example); err != nil {
			return err
		}
		if e.location != "" {
			if err := checkPlace("location", e.location); err != nil {
				return err
			}
		}
		if wildcard && strings.Contains(e.prefix, "/") {
			return fmt.Errorf("prefix %q: a wildcard stands for hosts only", e.prefix)
		}
		for _, m := range r.Mirror {
			use := m.Pull
			switch {
			case r.MirrorByDigestOnly && use != "":
				return fmt.Errorf("prefix %q: mirror-by-digest-only and pull-from-mirror cannot both be", e.prefix)
			case r.MirrorByDigestOnly:
				use = pullByDigest
			case use == "":
				use = pullAll
			case use != pullAll && use != pullByDigest && use != pullByTag:
				return fmt.Errorf("prefix %q: pull-from-mirror %q: want all, digest-only or tag-only", e.prefix, use)
			}
			location := strings.TrimRight(m.Location, "/")
			if err := checkPlace("location of a mirror", location); err != nil {
				return err
			}
			e.mirrors = append(e.mirrors, mirror{location: location, insecure: m.Insecure, use: use})
		}
		e.prefix = lowerHost(e.prefix)
		c.registries = slices.DeleteFunc(c.registries, func(old entry) bool { return old.prefix == e.prefix })
		c.registries = append(c.registries, e)
	}
	sortRegistries(c.registries)
	return nil
}

// lowerHost writes the host of a prefix as references have it.
func lowerHost(s string) string {
	host, path, ok := strings.Cut(s, "/")
	if !ok {
		return strings.ToLower(host)
	}
	return strings.ToLower(host) + "/" + path
}

// checkPlace refuses what cannot begin a reference.
func checkPlace(what, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%s is missing", what)
	case strings.Contains(s, "://"):
		return fmt.Errorf("%s %q: write it without scheme; insecure = true allows http", what, s)
	case strings.ContainsAny(s, " \t\r\n?#\\%"):
		return fmt.Errorf("%s %q: it holds characters that no reference has", what, s)
	}
	host, _, _ := strings.Cut(s, "/")
	if !isHost(host) {
		return fmt.Errorf("%s %q: %q is not a host", what, s, host)
	}
	return nil
}

// isHost reports whether a text is HOST or HOST:PORT, as references have it.
func isHost(s string) bool {
	r, err := ref.Parse(s + "/x")
	return err == nil && strings.EqualFold(r.Host, s)
}

// version1 turns the old form into the new one.
func (d *document) version1() error {
	if len(d.Registries) == 0 {
		return nil
	}
	if d.Search != nil || d.Registry != nil {
		return errors.New("it mixes version 1 ([registries.search]) and 2 ([[registry]]) of the format")
	}
	d.Search = d.Registries["search"].Registries
	byHost := map[string]int{}
	for _, kind := range []string{"insecure", "block"} {
		for _, host := range d.Registries[kind].Registries {
			i, ok := byHost[host]
			if !ok {
				i = len(d.Registry)
				byHost[host] = i
				d.Registry = append(d.Registry, table{Location: host})
			}
			switch kind {
			case "insecure":
				d.Registry[i].Insecure = true
			case "block":
				d.Registry[i].Blocked = true
			}
		}
	}
	return nil
}
