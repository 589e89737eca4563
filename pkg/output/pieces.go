package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

// Named is one document with the names it gets in the index.json of a layout or archive. Without names it is an entry
// of its own.
type Named struct {
	Desc  ocispec.Descriptor
	Names []ref.Ref // of a registry: whole names
	Tags  []string  // bare org.opencontainers.image.ref.name
}

// addNamed is addToIndex for several documents.
func addNamed(old []byte, all []Named) ([]byte, error) {
	for _, n := range all {
		var err error
		if len(n.Names) > 0 || len(n.Tags) == 0 {
			if old, err = addToIndex(old, n.Desc, n.Names); err != nil {
				return nil, err
			}
		}
		for _, tag := range n.Tags {
			if old, err = addTag(old, n.Desc, tag); err != nil {
				return nil, err
			}
		}
	}
	return old, nil
}

// addTag puts desc under a bare tag: an entry with that tag is replaced in its place, whatever its whole name.
func addTag(old []byte, desc ocispec.Descriptor, tag string) ([]byte, error) {
	tree, err := parseIndex(old)
	if err != nil {
		return nil, err
	}
	annotations := map[string]string{}
	for k, v := range desc.Annotations {
		annotations[k] = v
	}
	annotations[ocispec.AnnotationRefName] = tag
	desc.Annotations = annotations
	raw, err := jsontree.Marshal(desc)
	if err != nil {
		return nil, err
	}
	entry, err := jsontree.Parse(raw)
	if err != nil {
		return nil, err
	}
	var entries []*jsontree.Node
	placed := false
	for _, e := range tree.Get("manifests").Items() {
		if name, _ := e.Get("annotations").Get(ocispec.AnnotationRefName).Text(); name != tag {
			entries = append(entries, e)
		} else if !placed {
			entries, placed = append(entries, entry), true
		}
	}
	if !placed {
		entries = append(entries, entry)
	}
	tree.Set("manifests", jsontree.NewArray(entries...))
	return tree.Bytes(), nil
}

// Layout is an image layout directory that is written blob by blob. Blobs have their names as soon as they are whole, so
// that a second try finds them; Commit makes them known. It is safe for concurrent use.
type Layout struct {
	path string
	root *os.Root

	written sync.Mutex // guards dirty
	dirty   []ocispec.Descriptor
}

// OpenLayout opens a directory, which is made when it is missing and refused when it holds something else.
func OpenLayout(path string) (*Layout, error) {
	if err := os.MkdirAll(path, 0o777); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	if err := checkLayout(path, entries); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &Layout{path: path, root: root}, nil
}

// Close ends the use of the directory.
func (l *Layout) Close() error { return l.root.Close() }

// Has reports whether a blob is there, reading it: only one whose digest is right counts.
func (l *Layout) Has(ctx context.Context, desc ocispec.Descriptor) bool {
	return hasBlob(ctx, l.root, blobPath(desc), desc)
}

// Read returns a document that is there, verified.
func (l *Layout) Read(ctx context.Context, desc ocispec.Descriptor) (_ []byte, ok bool) {
	if !l.Has(ctx, desc) {
		return nil, false
	}
	raw, err := l.root.ReadFile(filepath.FromSlash(blobPath(desc)))
	if err != nil || int64(len(raw)) != desc.Size || desc.Digest.Algorithm().FromBytes(raw) != desc.Digest {
		return nil, false
	}
	return raw, true
}

// putBuffer is how much is read and written at once.
const putBuffer = 64 << 10

var putBuffers = sync.Pool{New: func() any { return new([putBuffer]byte) }}

// verifies reports whether a reader gives an error in place of io.EOF unless its bytes have the digest.
func verifies(r io.Reader, d digest.Digest) bool {
	v, ok := r.(interface{ Verifies() digest.Digest })
	return ok && v.Verifies() == d
}

// verified is the digest.Verifier of bytes that their reader verifies.
type verified struct{}

func (verified) Write(p []byte) (int, error) { return len(p), nil }
func (verified) Verified() bool              { return true }

// Put writes a blob, and keeps nothing of one that is not what desc says.
func (l *Layout) Put(ctx context.Context, desc ocispec.Descriptor, r io.Reader) error {
	if !desc.Digest.Algorithm().Available() {
		return fmt.Errorf("blob %s: %q is an unsupported digest algorithm", desc.Digest, desc.Digest.Algorithm())
	}
	f, err := writePending(l.root, blobPath(desc), func(w io.Writer) error {
		v := desc.Digest.Verifier()
		if verifies(r, desc.Digest) {
			v = verified{}
		} else {
			w = io.MultiWriter(w, v)
		}
		buf := putBuffers.Get().(*[putBuffer]byte) //nolint:forcetypeassert // the pool holds nothing else
		defer putBuffers.Put(buf)
		n, err := io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(contextReader{ctx, r}, desc.Size+1), buf[:])
		switch {
		case err != nil:
			return err
		case n != desc.Size:
			return fmt.Errorf("it has %d bytes, its descriptor says %d", n, desc.Size)
		case !v.Verified():
			return errors.New("its digest is another")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	defer f.abort()
	if err := f.commit(); err != nil {
		return err
	}
	l.written.Lock()
	defer l.written.Unlock()
	l.dirty = append(l.dirty, desc)
	return nil
}

// Commit makes documents known under their names. What they reach must have been put.
func (l *Layout) Commit(ctx context.Context, all []Named) error {
	unlock, err := lockDirectory(ctx, l.path)
	if err != nil {
		return err
	}
	defer unlock()
	l.written.Lock()
	defer l.written.Unlock()
	if err := syncDirectories(l.root, l.dirty); err != nil {
		return err
	}
	if _, err := l.root.Lstat(ocispec.ImageLayoutFile); errors.Is(err, fs.ErrNotExist) {
		if err := replaceIn(l.root, ocispec.ImageLayoutFile, layoutFile()); err != nil {
			return err
		}
	}
	old, err := readLayoutFile(l.path, ocispec.ImageIndexFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	idx, err := addNamed(old, all)
	if err != nil {
		return fmt.Errorf("%s: %w", ocispec.ImageIndexFile, err)
	}
	if string(idx) == string(old) {
		return nil
	}
	return replaceIn(l.root, ocispec.ImageIndexFile, idx)
}

// Archive is what WriteArchive writes.
type Archive struct {
	Named []Named
	Docs  []Document           // in the order of the archive
	Blobs []ocispec.Descriptor // after them
	Open  func(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
	Epoch *int64 // seconds: the time of its members
}

// Document is a manifest or index, or another small blob that is in memory.
type Document struct {
	Desc ocispec.Descriptor
	Raw  []byte
}

// WriteArchive writes an image layout as a tar to dest ("-" is env.Stdout). The file appears when all of it was
// written and every blob read to its end. Equal content gives equal bytes.
func WriteArchive(ctx context.Context, dest string, a Archive, env Env) error {
	f, err := openFile(Spec{Type: "oci", Dest: dest}, env)
	if err != nil {
		return err
	}
	idx, err := addNamed(nil, a.Named)
	if err != nil {
		return err
	}
	return f.write(func(w io.Writer) error {
		out := newArchive(w, a.Epoch)
		if err := out.file(ocispec.ImageLayoutFile, layoutFile()); err != nil {
			return err
		}
		if err := out.file(ocispec.ImageIndexFile, idx); err != nil {
			return err
		}
		for _, d := range a.Docs {
			if err := out.file(blobPath(d.Desc), d.Raw); err != nil {
				return err
			}
		}
		for _, b := range a.Blobs {
			if err := out.header(blobPath(b), b.Size); err != nil {
				return fmt.Errorf("blob %s: %w", b.Digest, err)
			}
			if err := copyBlob(ctx, out, b, a.Open); err != nil {
				return fmt.Errorf("blob %s: %w", b.Digest, err)
			}
		}
		return out.close()
	})
}

func copyBlob(ctx context.Context, w io.Writer, desc ocispec.Descriptor, open func(context.Context, ocispec.Descriptor) (io.ReadCloser, error)) (err error) {
	r, err := open(ctx, desc)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	n, err := io.Copy(w, contextReader{ctx, r})
	if err == nil && n != desc.Size {
		err = fmt.Errorf("it has %d bytes, its descriptor says %d", n, desc.Size)
	}
	return err
}
