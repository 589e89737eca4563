package bundle

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// sniffSize is how many bytes tell what a file is.
const sniffSize = 512

// File is an archive on disk, uncompressed: what was compressed, or came from a pipe, lies in a temporary file.
type File struct {
	*os.File
	size  int64
	name  string // as the user knows it
	spool string // a temporary file to remove
}

// OpenFile opens an archive, plain or compressed; "-" is stdin. Temporary files are made in spool ("": the system's
// directory for them).
func OpenFile(ctx context.Context, name string, stdin io.Reader, spool string) (*File, error) {
	if name == "-" {
		if stdin == nil {
			return nil, fmt.Errorf("%w: there is no standard input", ErrInvalid)
		}
		return spooled(ctx, "standard input", stdin, spool)
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%w: %s is a directory: copy from it with oci:%s", ErrInvalid, name, name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // a pipe
		file, err := spooled(ctx, name, f, spool)
		return file, errors.Join(err, f.Close())
	}
	head := make([]byte, sniffSize)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, f.Close())
	}
	switch layer.Sniff(head[:n]) {
	case layer.Gzip, layer.Zstd, "xz", "bzip2":
		file, err := spooled(ctx, name, f, spool)
		return file, errors.Join(err, f.Close())
	}
	return &File{File: f, size: info.Size(), name: name}, nil
}

// spooled unpacks a stream to a temporary file.
func spooled(ctx context.Context, name string, r io.Reader, dir string) (*File, error) {
	buf := bufio.NewReaderSize(r, 1<<16)
	if head, err := buf.Peek(1); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrIncomplete, name, errors.Join(io.ErrUnexpectedEOF, skipEOF(err), emptyNote(head)))
	}
	tmp, err := os.CreateTemp(dir, "manifestctl-load-*.tar")
	if err != nil {
		return nil, err
	}
	f := &File{File: tmp, name: name, spool: tmp.Name()}
	rc, err := layer.Decompress(ctx, buf, layer.Limits{})
	if err == nil {
		f.size, err = io.Copy(tmp, contextReader{ctx, rc})
		err = errors.Join(err, rc.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("unpacking %s: %w", name, err), f.Close())
	}
	return f, nil
}

func skipEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func emptyNote(head []byte) error {
	if len(head) == 0 {
		return errors.New("it is empty")
	}
	return nil
}

// Path is the file that is read.
func (f *File) Path() string { return f.File.Name() }

// Close ends the use of the file, and removes it if it is a temporary one.
func (f *File) Close() error {
	err := f.File.Close()
	if f.spool != "" {
		err = errors.Join(err, os.Remove(f.spool))
	}
	return err
}

// Archive is an archive with its contents, unverified but for those.
type Archive struct {
	Contents Contents
	Digest   digest.Digest // of the contents: what the archive is known by

	file *File
	plan *plan
	at   map[digest.Digest]*member
}

// ErrForeign says that an archive was not made by this program: it has no list of contents.
var ErrForeign = errors.New("no bundle")

// Read reads the contents of an archive. They are checked by themselves; Verify checks the archive.
func Read(f *File) (*Archive, error) {
	r := tar.NewReader(io.NewSectionReader(f, 0, f.size))
	idx, err := f.small(r, ocispec.ImageLayoutFile, ocispec.ImageIndexFile)
	if err != nil {
		return nil, err
	}
	var top ocispec.Index
	if _, err := jsontree.Decode(idx, &top); err != nil {
		return nil, fmt.Errorf("%w: %s: %s: %w", ErrCorrupt, f.name, ocispec.ImageIndexFile, err)
	}
	d := digest.Digest(top.Annotations[AnnotationContents])
	if d == "" {
		return nil, f.unnamed(r)
	}
	if err := index.CheckDigest(d); err != nil {
		return nil, fmt.Errorf("%w: %s: %s: %w", ErrInvalid, f.name, AnnotationContents, err)
	}
	list, err := f.small(r, blobName(d))
	if errors.Is(err, ErrForeign) {
		return nil, fmt.Errorf("%w: %s names %s as its list of contents, and something else is there", ErrCorrupt, f.name, d)
	}
	if err != nil {
		return nil, err
	}
	if got := d.Algorithm().FromBytes(list); got != d {
		return nil, fmt.Errorf("%w: %s: the list of contents is %s, and should be %s", ErrCorrupt, f.name, got, d)
	}
	c, err := ParseContents(list)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	a := &Archive{Contents: c, Digest: d, file: f, at: map[digest.Digest]*member{}}
	if a.plan, err = newPlan(c); err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	for i := range a.plan.members {
		if m := &a.plan.members[i]; m.desc.Digest != "" {
			a.at[m.desc.Digest] = m
		}
	}
	return a, nil
}

// unnamed tells an archive without a list of contents from one whose index.json was changed so that it names none.
func (f *File) unnamed(r *tar.Reader) error {
	for {
		h, err := r.Next()
		if err == nil && h.Typeflag == tar.TypeDir {
			continue
		}
		if err == nil && h.Typeflag == tar.TypeReg && h.Size <= maxContents {
			if raw, err := io.ReadAll(r); err == nil {
				if _, err := ParseContents(raw); err == nil {
					return fmt.Errorf("%w: %s: its %s does not name the list of contents that is there", ErrCorrupt, f.name, ocispec.ImageIndexFile)
				}
			}
		}
		return fmt.Errorf("%w: %s has no list of contents", ErrForeign, f.name)
	}
}

// small reads files that come next, directories aside, and returns the last.
func (f *File) small(r *tar.Reader, names ...string) (raw []byte, err error) {
	for len(names) > 0 {
		h, err := r.Next()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, fmt.Errorf("%w: %s ends before its %s", ErrIncomplete, f.name, names[0])
		case err != nil:
			return nil, fmt.Errorf("%w: %s: looking for %s: %w", ErrCorrupt, f.name, names[0], err)
		case h.Typeflag == tar.TypeDir:
			continue
		case h.Name != names[0] || h.Typeflag != tar.TypeReg:
			return nil, fmt.Errorf("%w: %s begins with %q, and not with %s", ErrForeign, f.name, h.Name, names[0])
		case h.Size > maxContents:
			return nil, fmt.Errorf("%w: %s: %s has %d bytes, more than the limit of %d", ErrInvalid, f.name, h.Name, h.Size, maxContents)
		}
		if raw, err = io.ReadAll(r); err != nil {
			return nil, fmt.Errorf("%w: %s ends in its %s", ErrIncomplete, f.name, names[0])
		}
		names = names[1:]
	}
	return raw, nil
}

// Has reports whether a document or blob is in the archive.
func (a *Archive) Has(d digest.Digest) bool { return a.at[d] != nil }

// Open opens a document or blob of the archive. Whoever reads it to its end has verified it.
func (a *Archive) Open(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	m := a.at[desc.Digest]
	if m == nil {
		return nil, fmt.Errorf("%s in %s: %w", desc.Digest, a.file.name, fs.ErrNotExist)
	}
	if desc.Size > 0 && desc.Size != m.size() {
		return nil, fmt.Errorf("%w: %s: %s has %d bytes, and a descriptor of it says %d", ErrCorrupt, a.file.name, desc.Digest, m.size(), desc.Size)
	}
	return &verified{r: io.NewSectionReader(a.file, m.data(), m.size()), m: m, v: m.desc.Digest.Verifier(), file: a.file.name}, nil
}

// Document reads a document.
func (a *Archive) Document(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if desc.Size > index.MaxSize {
		return nil, fmt.Errorf("%w: %s has %d bytes, more than the limit of %d for manifests", ErrInvalid, desc.Digest, desc.Size, index.MaxSize)
	}
	rc, err := a.Open(ctx, desc)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(rc, index.MaxSize+1))
	return raw, errors.Join(err, rc.Close())
}

// verified reports an error in place of io.EOF when what was read is something else.
type verified struct {
	r    io.Reader
	m    *member
	v    digest.Verifier
	file string
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	_, _ = v.v.Write(p[:n]) // a hash's Write never fails
	if err == io.EOF && !v.v.Verified() {
		return n, fmt.Errorf("%w: %s: %s is not what its name says", ErrCorrupt, v.file, v.m.name)
	}
	return n, err
}

func (v *verified) Close() error { return nil }

// readable is a name as it may be shown.
func readable(name string) string { return strings.ToValidUTF8(fmt.Sprintf("%.200q", name), "?") }

// ReadLock reads a file that is a list of contents by itself. It is false when the file begins as none.
func ReadLock(path string) (raw []byte, ok bool) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	first := make([]byte, 1)
	if _, err := f.ReadAt(first, 0); err != nil || first[0] != '{' {
		return nil, false
	}
	raw, err = io.ReadAll(io.LimitReader(f, maxContents+1))
	return raw, err == nil
}
