// Package accel lets programs of this machine stand in for the same programs of a foreign image while a step runs under
// emulation: the shell, coreutils, tar and a few others, from Debian packages of the same version as the image's.
//
// It reads packages and tables of contents, chooses, and writes a tar. Where that is unpacked and how it is mounted is
// its caller's; so is to look whether any of it came into a layer ([Overlay.Native]).
//
// # Invariants
//
//   - A program stands in only for one of the same package in the same version (without the number of a binary rebuild).
//   - What a program needs (its loader and libraries) is in the overlay, or the program is not.
//   - Programs that say what machine they are of (uname, arch, nproc, dpkg) are never in it.
//   - What the overlay shows has the names, owners, modes and times that the image has.
package accel

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/exe"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/packages"
)

// ErrSource reports a source of programs that is none.
var ErrSource = errors.New("no programs to accelerate with")

// Host is the source that is this machine's own packages.
const Host = "host"

// programs are what is taken, by package: nil is every program of it but those in not. Their options and output do not
// depend on the machine.
var programs = map[string][]string{
	"dash": {"dash"}, "bash": {"bash"}, "coreutils": nil, "sed": {"sed"}, "grep": {"grep"}, "tar": {"tar"}, "gzip": {"gzip"},
	"xz-utils": {"xz"}, "findutils": {"find", "xargs"}, "mawk": {"mawk"}, "dpkg": {"dpkg-deb", "dpkg-split"},
}

// not are programs of coreutils that say what the machine is, or load what is of the image.
var not = map[string]bool{"uname": true, "arch": true, "nproc": true, "stdbuf": true, "chroot": true}

// limits of what is read of packages.
const (
	maxFile  = 32 << 20
	maxTotal = 256 << 20
)

// file is a program, a library, or a link to one.
type file struct {
	data   []byte
	target string // of a symlink
}

// pack is what is of use in one package.
type pack struct {
	name, version string
	files         map[string]file // by absolute name
}

// Tools are programs of this machine.
type Tools struct {
	packs  []pack
	digest digest.Digest
}

// Digest identifies all of them.
func (t *Tools) Digest() digest.Digest { return t.digest }

// Load reads programs from sources: files of Debian packages, directories of such, or Host.
func Load(ctx context.Context, sources []string) (*Tools, error) {
	t := &Tools{}
	for _, s := range sources {
		var err error
		if s == Host {
			err = t.host("/")
		} else {
			err = t.files(ctx, s)
		}
		if err != nil {
			return nil, err
		}
	}
	found := false
	for _, p := range t.packs {
		_, known := programs[p.name]
		found = found || known
	}
	if !found {
		return nil, fmt.Errorf("%w: none of %s is for %s in %s", ErrSource, strings.Join(known(), ", "), runtime.GOARCH, strings.Join(sources, ", "))
	}
	t.sum()
	return t, nil
}

func known() []string {
	names := make([]string, 0, len(programs))
	for name := range programs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (t *Tools) sum() {
	d := digest.Canonical.Digester()
	for _, p := range t.packs {
		names := make([]string, 0, len(p.files))
		for name := range p.files {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			f := p.files[name]
			fmt.Fprintf(d.Hash(), "%q %q %q %q %s\n", p.name, p.version, name, f.target, digest.FromBytes(f.data))
		}
	}
	t.digest = d.Digest()
}

// files reads one package, or all of a directory.
func (t *Tools) files(ctx context.Context, name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSource, err)
	}
	names := []string{name}
	if info.IsDir() {
		if names, err = filepath.Glob(filepath.Join(name, "*.deb")); err != nil || len(names) == 0 {
			return fmt.Errorf("%w: %s has no *.deb", ErrSource, name)
		}
	}
	for _, name := range names {
		if err := t.deb(ctx, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (t *Tools) deb(ctx context.Context, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSource, err)
	}
	defer f.Close()
	var about []packages.Package
	err = eachFile(ctx, f, packages.DebControl, func(h *tar.Header, r io.Reader) (err error) {
		if path.Clean(h.Name) == "control" {
			about, err = packages.Read(packages.Dpkg, io.LimitReader(r, maxFile))
		}
		return err
	})
	if err != nil {
		return err
	}
	if len(about) != 1 {
		return fmt.Errorf("%w: its control file is of no package", ErrSource)
	}
	if about[0].Arch != debArch() {
		return nil // of another machine: a directory may have them all
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	p := pack{name: about[0].Name, version: about[0].Version, files: map[string]file{}}
	left := int64(maxTotal)
	err = eachFile(ctx, f, packages.DebData, func(h *tar.Header, r io.Reader) error {
		name := path.Clean("/" + h.Name)
		if !wanted(p.name, name) {
			return nil
		}
		switch h.Typeflag {
		case tar.TypeSymlink:
			p.files[name] = file{target: h.Linkname}
		case tar.TypeReg:
			if h.Size > maxFile || h.Size > left {
				return fmt.Errorf("%w: %s is too large", ErrSource, name)
			}
			left -= h.Size
			data, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			p.files[name] = file{data: data}
		}
		return nil
	})
	if err != nil {
		return err
	}
	t.packs = append(t.packs, p)
	return nil
}

// eachFile reads the files of one archive of a package.
func eachFile(ctx context.Context, r io.Reader, member func(io.Reader) (io.Reader, error), fn func(*tar.Header, io.Reader) error) (err error) {
	data, err := member(r)
	if err != nil {
		return err
	}
	files, err := layer.Decompress(ctx, data, layer.Limits{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, files.Close()) }()
	for tr := tar.NewReader(files); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a package: %w", err)
		}
		if err := fn(h, tr); err != nil {
			return err
		}
	}
}

// wanted reports whether a file of a package may be of use: one of its programs, a library, a loader.
func wanted(pkg, name string) bool {
	dir, base := path.Split(name)
	if strings.Contains(base, ".so") {
		return strings.HasPrefix(dir, "/lib") || strings.HasPrefix(dir, "/usr/lib") && strings.Count(dir, "/") <= 4
	}
	list, ok := programs[pkg]
	switch dir {
	case "/bin/", "/usr/bin/", "/sbin/", "/usr/sbin/":
		return ok && !not[base] && (list == nil || slices.Contains(list, base))
	}
	return false
}

// host reads the packages that are installed below root.
func (t *Tools) host(root string) error {
	status, err := os.Open(filepath.Join(root, "var/lib/dpkg/status"))
	if err != nil {
		return fmt.Errorf("%w: this machine has no packages of Debian: %w", ErrSource, err)
	}
	installed, err := packages.Read(packages.Dpkg, status)
	if err := errors.Join(err, status.Close()); err != nil {
		return fmt.Errorf("%w: %w", ErrSource, err)
	}
	h := hostFiles{root: root, left: maxTotal, where: map[string][2]string{}, packs: map[string]*pack{}}
	var found [][2]string
	for _, i := range installed {
		_, isProgram := programs[i.Name]
		if i.Arch != debArch() || !isProgram && !strings.HasPrefix(i.Name, "lib") && i.Name != "zlib1g" {
			continue
		}
		h.packs[i.Name] = &pack{name: i.Name, version: i.Version, files: map[string]file{}}
		for _, name := range listed(root, i.Name) {
			switch {
			case !wanted(i.Name, name):
			case strings.Contains(path.Base(name), ".so"):
				h.where[name] = [2]string{i.Name, name}
				h.where[path.Base(name)] = [2]string{i.Name, name}
			default:
				found = append(found, [2]string{i.Name, name})
			}
		}
	}
	for _, f := range found { // now that it is known where libraries are
		if err := h.take(f[0], f[1]); err != nil {
			return err
		}
	}
	for _, i := range installed {
		if p := h.packs[i.Name]; p != nil && i.Arch == debArch() && len(p.files) > 0 {
			t.packs = append(t.packs, *p)
		}
	}
	return nil
}

// hostFiles takes programs of this machine and what they need.
type hostFiles struct {
	root  string
	left  int64
	where map[string][2]string // package and name of a library, by name and base name
	packs map[string]*pack
}

func (h *hostFiles) take(pkg, name string) error {
	p := h.packs[pkg]
	if _, ok := p.files[name]; ok {
		return nil
	}
	full := filepath.Join(h.root, name)
	info, err := os.Lstat(full)
	switch {
	case err != nil:
		return nil //nolint:nilerr // removed by its owner
	case info.Mode()&os.ModeSymlink != 0:
		target, err := os.Readlink(full)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrSource, err)
		}
		p.files[name] = file{target: target}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(name), target)
		}
		return h.library(target)
	case !info.Mode().IsRegular() || info.Size() > min(maxFile, h.left):
		return nil
	}
	data, err := os.ReadFile(full)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSource, err)
	}
	h.left -= int64(len(data))
	p.files[name] = file{data: data}
	interp, libs, err := needs(data)
	if err != nil {
		return nil //nolint:nilerr // a script
	}
	if interp != "" {
		libs = append(slices.Clone(libs), interp)
	}
	for _, lib := range libs {
		if err := h.library(lib); err != nil {
			return err
		}
	}
	return nil
}

// library takes a library by its name or base name; that it is missing is found out when it is needed.
func (h *hostFiles) library(name string) error {
	for _, n := range []string{name, "/usr" + name, strings.TrimPrefix(name, "/usr"), path.Base(name)} {
		if at, ok := h.where[n]; ok {
			return h.take(at[0], at[1])
		}
	}
	return nil
}

// listed are the names of an installed package's files.
func listed(root, name string) []string {
	for _, list := range []string{name, name + ":" + debArch()} {
		if data, err := os.ReadFile(filepath.Join(root, "var/lib/dpkg/info", list+".list")); err == nil {
			return strings.Split(strings.TrimSpace(string(data)), "\n")
		}
	}
	return nil
}

// debArch is this machine's architecture as Debian calls it.
func debArch() string {
	switch runtime.GOARCH {
	case "386":
		return "i386"
	case "arm":
		return "armhf"
	case "ppc64le":
		return "ppc64el"
	}
	return runtime.GOARCH
}

// upstream is a version without the number of a binary rebuild (+b2), which differs between architectures.
func upstream(version string) string {
	head, tail, ok := strings.Cut(version, "+b")
	if ok && tail != "" && strings.Trim(tail, "0123456789") == "" {
		return head
	}
	return version
}

// errNotELF is a script, or a program of another machine.
var errNotELF = errors.New("not a program of this machine")

// needs are a program's loader and libraries.
func needs(data []byte) (interp string, libs []string, err error) {
	e := exe.Parse(data)
	if e == nil || e.Format != exe.ELF || e.Arch != runtime.GOARCH {
		return "", nil, errNotELF
	}
	if !e.Partial {
		return e.Interp, e.Needed, nil
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return "", nil, err
	}
	libs, err = f.ImportedLibraries()
	return e.Interp, libs, err
}
