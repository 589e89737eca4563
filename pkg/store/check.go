package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// CheckOptions tunes a check.
type CheckOptions struct {
	ReadData bool // hash every blob, not only its size and reachability
	Repair   bool // remove corrupt blobs and what needs them, rewrite index.json
}

// Finding is one thing wrong with a store.
type Finding struct {
	Object   string // "blob sha256:...", "ref hello:1.0"
	Text     string
	Fixed    bool
	Harmless bool // nothing is lost: what an interrupted process left for gc, or a file that is not ours
}

// String is the finding in one line.
func (f Finding) String() string {
	s := f.Object + ": " + f.Text
	if f.Fixed {
		s += " (fixed)"
	}
	return s
}

// Check reports what is wrong: missing, truncated or corrupt content, dangling refs.
// With Repair a ref that lost content stays and is reported: only its owner knows whether to pull or to build again.
func (s *Store) Check(ctx context.Context, o CheckOptions) ([]Finding, error) {
	if o.Repair {
		if err := s.writable(); err != nil {
			return nil, err
		}
	}
	c := &checking{s: s, corrupt: map[digest.Digest]string{}}
	enter := s.using
	switch {
	case o.Repair:
		enter = s.collecting
	case s.readOnly:
		enter = func(context.Context) (func(), error) { return s.usingToRead() }
	}
	leave, err := enter(ctx)
	if err != nil {
		return nil, fmt.Errorf("checking: %w", err)
	}
	defer leave()
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return c.blobs(ctx, o.ReadData) },
		c.refs, c.records, c.index, c.leftovers, c.unknown,
	} {
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("checking: %w", err)
		}
	}
	if o.Repair {
		for i := range c.found {
			f := &c.found[i]
			if f.fix == nil {
				continue
			}
			if err := f.fix(ctx); err != nil {
				return nil, fmt.Errorf("repairing %s: %w", f.Object, err)
			}
			f.Fixed = true
		}
	}
	out := make([]Finding, len(c.found))
	for i, f := range c.found {
		out[i] = f.Finding
	}
	return out, nil
}

type checking struct {
	s       *Store
	corrupt map[digest.Digest]string // what is wrong with it
	found   []finding
}

type finding struct {
	Finding
	fix func(context.Context) error
}

func (c *checking) add(object string, fix func(context.Context) error, format string, args ...any) {
	c.found = append(c.found, finding{Finding{Object: object, Text: fmt.Sprintf(format, args...)}, fix})
}

func (c *checking) addHarmless(object, format string, args ...any) {
	c.found = append(c.found, finding{Finding{Object: object, Text: fmt.Sprintf(format, args...), Harmless: true}, nil})
}

// spoil notes a corrupt blob once.
func (c *checking) spoil(d digest.Digest, why string) {
	if _, ok := c.corrupt[d]; ok {
		return
	}
	c.corrupt[d] = why
	c.add("blob "+d.String(), func(context.Context) error {
		return os.RemoveAll(c.s.Path(d)) // it may be a directory
	}, "%s", why)
}

// blobs looks at every blob, and with readData into it.
func (c *checking) blobs(ctx context.Context, readData bool) error {
	var hash []digest.Digest
	err := c.s.eachBlob(func(d digest.Digest, fi fs.FileInfo) error {
		if !plausible(d, fi) {
			c.spoil(d, implausible(fi))
		} else if readData {
			hash = append(hash, d)
		}
		return nil
	})
	if err != nil {
		return err
	}
	var mu sync.Mutex // guards bad
	bad := map[digest.Digest]error{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, d := range hash {
		g.Go(func() error {
			err := c.s.verifyBlob(gctx, d)
			switch {
			case err == nil, errors.Is(err, ErrNotFound):
				return nil
			case gctx.Err() != nil:
				return context.Cause(gctx)
			}
			mu.Lock()
			defer mu.Unlock()
			bad[d] = err
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, d := range hash {
		if err := bad[d]; errors.Is(err, ErrCorrupt) {
			c.spoil(d, reason(err, d))
		} else if err != nil {
			c.add("blob "+d.String(), nil, "it cannot be read: %v", err)
		}
	}
	return nil
}

// reason is err without the name of the blob, which stands before it anyway.
func reason(err error, d digest.Digest) string {
	return strings.TrimPrefix(err.Error(), "blob "+d.String()+": ")
}

// refs follows every ref.
func (c *checking) refs(ctx context.Context) error {
	refs, bad, err := c.s.readRefs()
	if err != nil {
		return err
	}
	files := make([]string, 0, len(bad))
	for file := range bad {
		files = append(files, file)
	}
	slices.Sort(files)
	for _, file := range files {
		c.add("ref file "+file, func(context.Context) error {
			to, err := os.MkdirTemp(c.s.path(damagedDir), "ref-*")
			if err != nil {
				return err
			}
			return os.Rename(c.s.path(refsDir, file), to+string(os.PathSeparator)+file)
		}, "%v (what it named has to be pulled or built again)", bad[file])
	}
	w := newWalker(c.s)
	for _, r := range refs {
		if err := c.ref(ctx, w, r); err != nil {
			return err
		}
	}
	return nil
}

func (c *checking) ref(ctx context.Context, w *walker, r Ref) error {
	object := "ref " + r.Name
	visit := func(e edge) error {
		d := e.desc.Digest
		fi, err := os.Lstat(c.s.Path(d))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if e.mayBeMissing() {
				return nil
			}
			if elsewhere, err := c.elsewhere(e); elsewhere || err != nil {
				return err
			}
			c.add(object, nil, "%s %s is missing: pull or build it again", e.what(), d)
			return nil
		case err != nil:
			return err
		}
		if e.desc.Size > 0 && fi.Size() != e.desc.Size && c.corrupt[d] == "" {
			err := c.s.verifyBlob(ctx, d)
			switch {
			case errors.Is(err, ErrCorrupt):
				c.spoil(d, reason(err, d))
			case err != nil && !errors.Is(err, ErrNotFound):
				return err
			default:
				c.add(object, nil, "%s %s has %d bytes, its descriptor says %d: pull or build it again", e.what(), d, fi.Size(), e.desc.Size)
			}
		}
		if c.corrupt[d] == "" && e.role != roleConfig && e.role != roleLayer {
			switch _, err := w.edges(ctx, e.desc); {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case errors.Is(err, ErrCorrupt):
				c.spoil(d, reason(err, d))
			case err != nil:
				c.add(object, nil, "%s %s, said to be %s: %s", e.what(), d, e.desc.MediaType, reason(err, d))
			}
		}
		if c.corrupt[d] != "" {
			c.add(object, nil, "%s %s is corrupt: pull or build it again", e.what(), d)
		}
		return nil
	}
	return w.walk(ctx, []edge{{desc: r.Desc}}, visit, func(error) error { return nil })
}

// mayBeMissing: an index may be sparse, a referrer need not travel with its
// subject, and foreign layers are fetched elsewhere.
func (e edge) mayBeMissing() bool {
	return e.role == roleChild || e.role == roleSubject || len(e.desc.URLs) > 0 ||
		strings.Contains(e.desc.MediaType, ".nondistributable.") || strings.Contains(e.desc.MediaType, ".foreign.")
}

// elsewhere reports whether a blob is not here because its manifest was only taken over from another place.
func (c *checking) elsewhere(e edge) (bool, error) {
	if e.parent == "" {
		return false, nil
	}
	path, err := c.s.recordPath(originKind, e.parent.String())
	if err != nil {
		return false, err
	}
	_, err = c.s.readRecord(path)
	return err == nil, nil // a damaged record is found by itself
}

func (e edge) what() string {
	if e.role == roleRoot {
		return "its blob"
	}
	return fmt.Sprintf("%s of %s, blob", e.role, e.parent)
}

func (c *checking) records(context.Context) error {
	return c.s.eachRecord(func(path string, r Record, err error) error {
		object := "record " + strings.TrimPrefix(path, c.s.root+string(os.PathSeparator))
		remove := func(context.Context) error { return os.RemoveAll(path) }
		if err != nil {
			c.add(object, remove, "%v", err)
			return nil
		}
		for _, d := range r.Blobs {
			if c.corrupt[d] != "" {
				c.add(object, remove, "it needs blob %s, which is corrupt", d)
				return nil
			}
		}
		return nil
	})
}

func (c *checking) index(ctx context.Context) error {
	if !c.s.readOnly {
		unlock, err := c.s.lockPath(ctx, indexLock)
		if err != nil {
			return err
		}
		defer unlock()
	}
	want, err := c.s.indexOfRefs()
	if err != nil {
		return err
	}
	if have, err := readSmall(c.s.path(indexFile)); err != nil || !bytes.Equal(have, want) {
		c.add(indexFile, c.s.reindex, "it is not what the refs say")
	}
	layout := fmt.Sprintf(`{"imageLayoutVersion":%q}`, ocispec.ImageLayoutVersion)
	if have, err := readSmall(c.s.path(layoutFile)); err != nil || strings.TrimSpace(string(have)) != layout {
		c.add(layoutFile, func(context.Context) error { return c.s.replaceFile(layoutFile, []byte(layout), true) },
			"it is not %s", layout)
	}
	return nil
}

// leftovers names what gc will remove.
func (c *checking) leftovers(context.Context) error {
	for dir, what := range map[string]string{ingestDir: "an unfinished blob", leasesDir: "a lease"} {
		entries, err := os.ReadDir(c.s.path(dir))
		if err != nil {
			return err
		}
		for _, e := range entries {
			object := "file " + dir + "/" + e.Name()
			if !e.Type().IsRegular() {
				c.addHarmless(object, "it is not ours and is left alone")
				continue
			}
			if c.s.readOnly {
				continue
			}
			alive, mine, err := isAlive(c.s.path(dir, e.Name()))
			if err != nil || alive {
				continue
			}
			_ = mine.Close()
			c.addHarmless(object, "%s of a process that ended: gc removes it", what)
		}
	}
	damaged, err := os.ReadDir(c.s.path(damagedDir))
	if err != nil {
		return err
	}
	for _, e := range damaged {
		c.addHarmless("file "+damagedDir+"/"+e.Name(), "damaged content that was set aside: gc removes it")
	}
	return nil
}

// unknown names files that are not ours.
func (c *checking) unknown(context.Context) error {
	s := c.s
	list := func(dir string, ours func(fs.DirEntry) bool) error {
		entries, err := os.ReadDir(s.path(dir))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !ours(e) && !strings.HasPrefix(e.Name(), tmpPrefix) {
				c.addHarmless("file "+strings.TrimPrefix(dir+"/"+e.Name(), "/"), "it is not ours and is left alone")
			}
		}
		return nil
	}
	if err := list("", func(e fs.DirEntry) bool {
		return reserved[e.Name()] || e.IsDir() && checkKind(e.Name()) == nil
	}); err != nil {
		return err
	}
	kinds, err := s.kinds()
	if err != nil {
		return err
	}
	for _, kind := range kinds {
		if err := list(kind, func(e fs.DirEntry) bool { return strings.HasSuffix(e.Name(), recordSuffix) }); err != nil {
			return err
		}
	}
	algos, err := os.ReadDir(s.path(blobsDir))
	if err != nil {
		return err
	}
	for _, a := range algos {
		algo := digest.Algorithm(a.Name())
		if !a.IsDir() || !algo.Available() {
			c.addHarmless("file "+blobsDir+"/"+a.Name(), "it is not ours and is left alone")
			continue
		}
		if err := list(blobsDir+"/"+a.Name(), func(e fs.DirEntry) bool {
			return checkDigest(digest.NewDigestFromEncoded(algo, e.Name())) == nil
		}); err != nil {
			return err
		}
	}
	return nil
}
