package build

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/packages"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// ErrNoEmulators reports an image or package without an emulator that could be installed.
var ErrNoEmulators = fmt.Errorf("%w: no emulators in it", source.ErrNotFound)

// EmulatorsFrom tunes [InstallEmulators] and [InstallEmulatorsFile].
type EmulatorsFrom struct {
	Dir    string   // where they go: Options.EmulatorDir of builds
	Arches []string // whose emulators; none is all there are
}

// EmulatorsInstalled is what came of it.
type EmulatorsInstalled struct {
	Installed []emulate.Installed // by architecture
	Refused   []error             // files with an emulator's name that this host cannot use
}

// InstallEmulators takes qemu's user mode emulators for this machine out of an image (tonistiigi/binfmt's layout and
// multiarch/qemu-user-static's). The highest layer's file counts, as in a container.
func InstallEmulators(ctx context.Context, opener *source.Opener, r ref.Ref, o EmulatorsFrom) (_ EmulatorsInstalled, err error) {
	img, err := opener.Open(ctx, r)
	if err != nil {
		return EmulatorsInstalled{}, err
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	res, err := source.Resolve(ctx, img, emulate.Machine())
	if err != nil {
		return EmulatorsInstalled{}, err
	}
	s, err := newStaged(o)
	if err != nil {
		return EmulatorsInstalled{}, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, desc := range res.Manifest.Layers {
		blob, err := img.Blob(ctx, desc)
		if err != nil {
			return EmulatorsInstalled{}, fmt.Errorf("%s: %w", r, err)
		}
		files, err := layer.DecompressLayer(ctx, blob, desc.MediaType, layer.Limits{})
		if err == nil {
			err = errors.Join(s.layer(ctx, files), files.Close())
		}
		if err = errors.Join(err, blob.Close()); err != nil {
			return EmulatorsInstalled{}, fmt.Errorf("%s: layer %s: %w", r, desc.Digest, err)
		}
	}
	return s.finish(r.String())
}

// InstallEmulatorsFile does the same from a file: a Debian package (qemu-user-static, or Debian 13's qemu-user), an archive of an
// image (OCI's or docker's), or an emulator itself, whose name says of what.
func InstallEmulatorsFile(ctx context.Context, opener *source.Opener, file string, o EmulatorsFrom) (_ EmulatorsInstalled, err error) {
	f, err := os.Open(file)
	if err != nil {
		return EmulatorsInstalled{}, fmt.Errorf("opening what has emulators: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	in := bufio.NewReader(f)
	head, err := in.Peek(len("!<arch>\n"))
	if err != nil && !errors.Is(err, io.EOF) {
		return EmulatorsInstalled{}, fmt.Errorf("reading %s: %w", file, err)
	}
	isELF := strings.HasPrefix(string(head), "\x7fELF")
	if !isELF && !packages.IsDeb(head) {
		return installFromArchive(ctx, opener, file, o)
	}
	s, err := newStaged(o)
	if err != nil {
		return EmulatorsInstalled{}, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if isELF {
		err = s.file(ctx, path.Join("bin", filepath.Base(file)), in)
	} else {
		err = s.deb(ctx, in)
	}
	if err != nil {
		return EmulatorsInstalled{}, fmt.Errorf("%s: %w", file, err)
	}
	return s.finish(file)
}

// installFromArchive opens an archive as OCI's, then as docker's.
func installFromArchive(ctx context.Context, opener *source.Opener, file string, o EmulatorsFrom) (EmulatorsInstalled, error) {
	got, err := InstallEmulators(ctx, opener, ref.Ref{Kind: ref.OCIArchive, Path: file}, o)
	if err == nil || errors.Is(err, ErrNoEmulators) {
		return got, err
	}
	got, err2 := InstallEmulators(ctx, opener, ref.Ref{Kind: ref.DockerArchive, Path: file}, o)
	if err2 == nil || errors.Is(err2, ErrNoEmulators) {
		return got, err2
	}
	return EmulatorsInstalled{}, fmt.Errorf("%s is no Debian package, no emulator and no archive of an image: %w", file, errors.Join(err, err2))
}

// staged are emulators that are installed when all was read: in a directory beside their place.
type staged struct {
	o       EmulatorsFrom
	tmp     string
	found   map[string]emulate.Installed // by architecture
	refused map[string]error             // by name
	there   map[string]bool              // of these architectures there is one by its name
}

func newStaged(o EmulatorsFrom) (*staged, error) {
	if o.Dir == "" {
		return nil, fmt.Errorf("%w: no directory for emulators: set HOME or XDG_DATA_HOME", os.ErrInvalid)
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("making a directory for emulators: %w", err)
	}
	tmp, err := os.MkdirTemp(o.Dir, ".install-")
	if err != nil {
		return nil, fmt.Errorf("installing emulators: %w", err)
	}
	return &staged{o: o, tmp: tmp, found: map[string]emulate.Installed{}, refused: map[string]error{}, there: map[string]bool{}}, nil
}

func (s *staged) close() error { return os.RemoveAll(s.tmp) }

func (s *staged) deb(ctx context.Context, r io.Reader) error {
	data, err := packages.DebData(r)
	if err != nil {
		return err
	}
	files, err := layer.Decompress(ctx, data, layer.Limits{})
	if err != nil {
		return err
	}
	return errors.Join(s.layer(ctx, files), files.Close())
}

// layer reads a tar to its end.
func (s *staged) layer(ctx context.Context, r io.Reader) error {
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r) // what is read to its end is verified
			return err
		}
		if err != nil {
			return fmt.Errorf("reading a layer: %w", err)
		}
		dir, base := path.Split(path.Clean("/" + h.Name))
		if gone, ok := strings.CutPrefix(base, ".wh."); ok {
			s.forget(dir + gone)
			continue
		}
		if h.Typeflag == tar.TypeReg {
			if err := s.file(ctx, h.Name, tr); err != nil {
				return err
			}
		}
	}
}

// forget drops what a whiteout removes.
func (s *staged) forget(name string) {
	if arch, ok := emulate.ArchOfName(name); ok {
		delete(s.found, arch)
	}
	delete(s.refused, path.Clean("/"+name))
}

// file stages a file that is an emulator by its name.
func (s *staged) file(ctx context.Context, name string, r io.Reader) error {
	arch, ok := emulate.ArchOfName(name)
	if !ok || arch == emulate.Machine().Arch {
		return nil
	}
	s.there[arch] = true
	if len(s.o.Arches) > 0 && !slices.Contains(s.o.Arches, arch) {
		return nil
	}
	s.forget(name)
	i, err := emulate.Install(ctx, s.tmp, arch, r)
	if errors.Is(err, emulate.ErrNotEmulator) {
		s.refused[path.Clean("/"+name)] = fmt.Errorf("%s: %w", name, err)
		return nil
	}
	if err != nil {
		return err
	}
	s.found[arch] = i
	return nil
}

// finish puts everything in its place.
func (s *staged) finish(from string) (EmulatorsInstalled, error) {
	var out EmulatorsInstalled
	for _, name := range slices.Sorted(maps.Keys(s.refused)) {
		out.Refused = append(out.Refused, s.refused[name])
	}
	for _, arch := range s.o.Arches {
		if _, ok := s.found[arch]; !ok {
			return out, fmt.Errorf("%w for %s: %s has %s%s", ErrNoEmulators, arch, from, s.list(), s.why(out.Refused))
		}
	}
	if len(s.found) == 0 {
		return out, fmt.Errorf("%w: %s: an image of qemu (tonistiigi/binfmt, multiarch/qemu-user-static) or the package qemu-user-static has them%s",
			ErrNoEmulators, from, s.why(out.Refused))
	}
	for _, arch := range slices.Sorted(maps.Keys(s.found)) {
		i := s.found[arch]
		to := filepath.Join(s.o.Dir, filepath.Base(i.Path))
		if err := os.Rename(i.Path, to); err != nil {
			return out, fmt.Errorf("installing the emulator of %s: %w", arch, err)
		}
		i.Path = to
		out.Installed = append(out.Installed, i)
	}
	return out, nil
}

func (s *staged) list() string {
	if len(s.there) == 0 {
		return "none"
	}
	return "those of " + strings.Join(slices.Sorted(maps.Keys(s.there)), ", ")
}

func (s *staged) why(refused []error) string {
	if len(refused) == 0 {
		return ""
	}
	return "; " + refused[0].Error()
}
