// Package packages reads the databases of the package managers that images hold: dpkg's, apk's and rpm's.
//
// # Invariants
//
//   - A damaged database is an error and never a panic, and memory follows what is in it, not what it claims.
package packages

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// ErrInvalid is the kind of every error for a database that cannot be read.
var ErrInvalid = errors.New("invalid package database")

// Package is one installed package.
type Package struct {
	Manager string `json:"manager"` // dpkg, apk or rpm
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch,omitempty"` // as the manager spells it; "all", "noarch": any
}

// Any reports whether the package is for every machine.
func (p Package) Any() bool { return p.Arch == "all" || p.Arch == "noarch" || p.Arch == "" }

// limits of what one database may hold.
const (
	maxPackages = 200_000
	maxField    = 4096 // bytes of a name or version
	maxLine     = 16 << 20
)

// Kind says which reader a file is for.
type Kind string

// The kinds of databases.
const (
	Dpkg      Kind = "dpkg"
	APK       Kind = "apk"
	RPMSQLite Kind = "rpm sqlite"
	RPMNdb    Kind = "rpm ndb"
	RPMBdb    Kind = "rpm bdb"
)

// KindOf tells by its clean name what database a file is, "" for none.
func KindOf(name string) Kind {
	dir, base := path.Split(name)
	switch strings.TrimSuffix(dir, "/") {
	case "var/lib/dpkg":
		if base == "status" {
			return Dpkg
		}
	case "var/lib/dpkg/status.d": // of distroless images
		if !strings.HasSuffix(base, ".md5sums") {
			return Dpkg
		}
	case "lib/apk/db", "usr/lib/apk/db":
		if base == "installed" {
			return APK
		}
	case "var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm":
		switch base {
		case "rpmdb.sqlite":
			return RPMSQLite
		case "Packages.db":
			return RPMNdb
		case "Packages":
			return RPMBdb
		}
	}
	return ""
}

// Random reports whether the kind has to be read at random.
func (k Kind) Random() bool { return strings.HasPrefix(string(k), "rpm") }

// Read reads a database of text from its beginning to its end.
func Read(kind Kind, r io.Reader) ([]Package, error) {
	var out []Package
	var err error
	switch kind {
	case Dpkg:
		out, err = readDpkg(r)
	case APK:
		out, err = readAPK(r)
	default:
		return nil, fmt.Errorf("%w: %s is not read as a stream", ErrInvalid, kind)
	}
	return sorted(out), err
}

func sorted(list []Package) []Package {
	slices.SortFunc(list, func(a, b Package) int {
		return cmpStrings(a.Manager, b.Manager, a.Name, b.Name, a.Arch, b.Arch, a.Version, b.Version)
	})
	return slices.Compact(list)
}

func cmpStrings(pairs ...string) int {
	for i := 0; i < len(pairs); i += 2 {
		if c := strings.Compare(pairs[i], pairs[i+1]); c != 0 {
			return c
		}
	}
	return 0
}

// lines calls f for every line. One that is longer than a buffer is cut: what is wanted of it stands at its beginning.
func lines(r io.Reader, f func(line []byte) error) error {
	br := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := br.ReadSlice('\n')
		cut := errors.Is(err, bufio.ErrBufferFull)
		if len(line) > 0 {
			if ferr := f(bytes.TrimRight(line, "\r\n")); ferr != nil {
				return ferr
			}
		}
		for rest := 0; cut; {
			more, merr := br.ReadSlice('\n')
			if rest += len(more); rest > maxLine {
				return fmt.Errorf("%w: a line of more than %d bytes", ErrInvalid, maxLine)
			}
			cut, err = errors.Is(merr, bufio.ErrBufferFull), merr
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// collector closes a paragraph of fields at an empty line.
type collector struct {
	out []Package
	cur Package
	off bool // it is not installed
}

func (c *collector) end(manager string) error {
	if c.cur.Name != "" && !c.off {
		if len(c.out) >= maxPackages {
			return fmt.Errorf("%w: more than %d packages", ErrInvalid, maxPackages)
		}
		c.cur.Manager = manager
		c.out = append(c.out, c.cur)
	}
	c.cur, c.off = Package{}, false
	return nil
}

func field(b []byte) (string, error) {
	b = bytes.TrimSpace(b)
	if len(b) > maxField {
		return "", fmt.Errorf("%w: a field of %d bytes", ErrInvalid, len(b))
	}
	return string(b), nil
}

// readDpkg reads status (deb822): paragraphs of "Key: value".
func readDpkg(r io.Reader) ([]Package, error) {
	var c collector
	err := lines(r, func(line []byte) (err error) {
		if len(line) == 0 {
			return c.end("dpkg")
		}
		key, value, ok := bytes.Cut(line, []byte{':'})
		if !ok || line[0] == ' ' || line[0] == '\t' {
			return nil
		}
		switch string(key) {
		case "Package":
			c.cur.Name, err = field(value)
		case "Version":
			c.cur.Version, err = field(value)
		case "Architecture":
			c.cur.Arch, err = field(value)
		case "Status":
			// "want flag status". What is unpacked and not configured is there as well.
			words := bytes.Fields(value)
			if c.off = len(words) != 3; c.off {
				return nil
			}
			for _, gone := range []string{"not-installed", "config-files", "half-installed"} {
				c.off = c.off || string(words[len(words)-1]) == gone
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = c.end("dpkg")
	return c.out, err
}

// readAPK reads installed: paragraphs of "K:value".
func readAPK(r io.Reader) ([]Package, error) {
	var c collector
	err := lines(r, func(line []byte) (err error) {
		if len(line) == 0 {
			return c.end("apk")
		}
		if len(line) < 2 || line[1] != ':' {
			return nil
		}
		switch line[0] {
		case 'P':
			c.cur.Name, err = field(line[2:])
		case 'V':
			c.cur.Version, err = field(line[2:])
		case 'A':
			c.cur.Arch, err = field(line[2:])
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = c.end("apk")
	return c.out, err
}
