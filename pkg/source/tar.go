package source

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// Limits of one archive.
const (
	maxMembers = 1_000_000
	maxLinks   = 8 // links in a row that lead to a file
)

// sniffSize is how many bytes tell what a file is.
const sniffSize = 512

// tarFiles is an uncompressed tar, opened once with an index of where its members lie.
type tarFiles struct {
	file    *os.File
	members map[string]tarMember
	remove  string // the spool's name where an open file cannot be unlinked
}

type tarMember struct {
	offset, size int64
	target       string // of a link: the name it leads to
}

// openTar opens an archive; a compressed one is unpacked to a temporary file in spool first.
func openTar(ctx context.Context, name, spool string) (files, error) {
	f, err := openRegular(name)
	if err != nil {
		return nil, err
	}
	t := &tarFiles{file: f}
	head := make([]byte, sniffSize)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, f.Close())
	}
	if compressed(head[:n]) {
		err := t.spool(ctx, f, spool)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, errors.Join(fmt.Errorf("unpacking %s: %w", name, err), t.closeSpool())
		}
	}
	if err := t.index(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s: %w", ErrInvalid, name, err), t.Close())
	}
	return t, nil
}

func openRegular(name string) (*os.File, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%w: %s is a directory and no archive: name a layout with the prefix oci: before it", ErrInvalid, name)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: %s is no regular file but %s", ErrInvalid, name, kindOf(info))
	}
	return os.Open(name)
}

// compressed tells by a file's first bytes whether something must be unpacked before the tar can be read.
func compressed(head []byte) bool {
	switch layer.Sniff(head) {
	case layer.Gzip, layer.Zstd, "xz", "bzip2":
		return true
	}
	return false
}

// spool unpacks from to a file without a name, and makes it t's.
func (t *tarFiles) spool(ctx context.Context, from io.Reader, dir string) error {
	t.file = nil
	tmp, err := os.CreateTemp(dir, "manifestctl-archive-*.tar")
	if err != nil {
		return err
	}
	t.file = tmp
	if err := os.Remove(tmp.Name()); err != nil {
		t.remove = tmp.Name() // Windows: when it is closed
	}
	rc, err := layer.Decompress(ctx, from, layer.Limits{})
	if err != nil {
		return err
	}
	_, err = io.Copy(tmp, rc)
	if err = errors.Join(err, rc.Close()); err != nil {
		return err
	}
	_, err = tmp.Seek(0, io.SeekStart)
	return err
}

func (t *tarFiles) closeSpool() error {
	if t.file == nil {
		return nil
	}
	return t.Close()
}

func (t *tarFiles) Close() error {
	err := t.file.Close()
	if t.remove != "" {
		err = errors.Join(err, os.Remove(t.remove))
	}
	return err
}

// position counts what is read from a tar, so that the place of a member's data is known.
type position struct {
	buf  *bufio.Reader
	file *os.File
	size int64
	at   int64
}

func (p *position) Read(b []byte) (int, error) {
	n, err := p.buf.Read(b)
	p.at += int64(n)
	return n, err
}

// Seek lets archive/tar skip data; only what it uses is there.
func (p *position) Seek(offset int64, whence int) (int64, error) {
	switch {
	case whence == io.SeekCurrent && offset == 0:
		return p.at, nil
	case whence == io.SeekCurrent:
		offset += p.at
	case whence == io.SeekEnd:
		offset += p.size
	}
	if buffered := int64(p.buf.Buffered()); offset >= p.at && offset-p.at <= buffered {
		_, err := p.buf.Discard(int(offset - p.at))
		p.at = offset
		return p.at, err
	}
	if _, err := p.file.Seek(offset, io.SeekStart); err != nil {
		return 0, err
	}
	p.buf.Reset(p.file)
	p.at = offset
	return p.at, nil
}

// index reads the headers. What no tool writes into such an archive is refused: names that leave it, devices, sparse
// files, two files of one name (ROBUSTNESS.md g03).
func (t *tarFiles) index(ctx context.Context) error {
	info, err := t.file.Stat()
	if err != nil {
		return err
	}
	t.members = make(map[string]tarMember)
	p := &position{buf: bufio.NewReaderSize(t.file, 4096), file: t.file, size: info.Size()}
	r := tar.NewReader(p)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("damaged or no tar, after %d members at byte %d: %w", len(t.members), p.at, err)
		}
		if err := t.add(h, p.at, info.Size()); err != nil {
			return err
		}
	}
}

func (t *tarFiles) add(h *tar.Header, at, end int64) error {
	name, err := memberName(h.Name)
	if err != nil {
		return err
	}
	m := tarMember{offset: at, size: h.Size}
	switch h.Typeflag {
	case tar.TypeDir, tar.TypeXGlobalHeader:
		return nil
	case tar.TypeReg:
		for key := range h.PAXRecords {
			if strings.HasPrefix(key, "GNU.sparse.") {
				return fmt.Errorf("member %q is a sparse file", h.Name)
			}
		}
		if m.size > end-at {
			return fmt.Errorf("member %q ends after %d of its %d bytes: the archive is incomplete", h.Name, end-at, m.size)
		}
	case tar.TypeSymlink:
		if m.target, err = memberName(path.Join(path.Dir(name), h.Linkname)); err == nil && path.IsAbs(h.Linkname) {
			err = fmt.Errorf("absolute target %q", h.Linkname)
		}
		if err != nil {
			return fmt.Errorf("link %q: %w", h.Name, err)
		}
	case tar.TypeLink:
		if m.target, err = memberName(h.Linkname); err != nil {
			return fmt.Errorf("link %q: %w", h.Name, err)
		}
	default:
		return fmt.Errorf("member %q is of type %q, which no image archive holds", h.Name, h.Typeflag)
	}
	if _, ok := t.members[name]; ok {
		return fmt.Errorf("two members are named %q", h.Name)
	}
	if len(t.members) >= maxMembers {
		return fmt.Errorf("more than %d members", maxMembers)
	}
	t.members[name] = m
	return nil
}

// memberName returns the clean form of a name, which must stay inside of the archive.
func memberName(name string) (string, error) {
	clean := path.Clean(name)
	if path.IsAbs(name) || clean == ".." || strings.HasPrefix(clean, "../") || strings.ContainsAny(name, "\\\x00") {
		return "", fmt.Errorf("the name %q leads out of the archive", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", fmt.Errorf("the name %q leads out of the archive", name)
		}
	}
	return clean, nil
}

func (t *tarFiles) open(name string) (io.ReadCloser, int64, error) {
	m, ok := t.members[name]
	for hops := 0; ok && m.target != ""; hops++ {
		if hops == maxLinks {
			return nil, 0, fmt.Errorf("%w: the member %q is a link that leads nowhere in %d steps", ErrInvalid, name, maxLinks)
		}
		m, ok = t.members[m.target]
	}
	if !ok {
		return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return section{io.NewSectionReader(t.file, m.offset, m.size)}, m.size, nil
}

// section is a member's data.
type section struct{ *io.SectionReader }

func (section) Close() error { return nil }
