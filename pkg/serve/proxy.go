package serve

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// proxied is a directory that keeps what clients ask for of another registry, and only reads that. Who may read here reads
// with the credentials that this process has there: a client's own go nowhere, and nothing that the other registry says of
// how to log in reaches a client. Which host is asked is never a client's choice.
//
// A tag is asked for each time, because it moves; when nobody answers, it is what it was. All else has a digest.
type proxied struct {
	*directory // what was kept
	up         *registry.Client
	at         string // HOST[:PORT][/PREFIX]
	s          *Server
	down       atomic.Int64 // until then nobody is asked, in Unix nanoseconds

	life    context.Context //nolint:containedctx // of fills, which outlive the request that began them
	end     context.CancelFunc
	running sync.WaitGroup

	mu    sync.Mutex // guards what follows
	fills map[fillKey]*fill
	sizes map[fillKey]int64 // of blobs, as manifests say
}

var _ storage = (*proxied)(nil)

const (
	// downFor is how long a registry that did not answer is left alone, if what was kept will do.
	downFor = 10 * time.Second
	// maxSizes bounds how many sizes are remembered; one that is not costs a request.
	maxSizes = 100_000
)

// What clients are told of the other registry.
var (
	codeUpstream       = &apiError{http.StatusBadGateway, "UNKNOWN", "the registry that this one is a proxy of cannot be asked"}
	codeUpstreamDenies = &apiError{http.StatusForbidden, "DENIED", "the registry that this one is a proxy of does not let it in"}
	codeLoop           = &apiError{http.StatusLoopDetected, "UNSUPPORTED", "this registry is a proxy of itself"}
)

// openProxy makes s a proxy of o.Proxy that keeps content in d.
func openProxy(s *Server, o *Options, d *directory) (*proxied, error) {
	p := &proxied{directory: d, at: o.Proxy, s: s, fills: map[fillKey]*fill{}, sizes: map[fillKey]int64{}}
	if _, err := p.ref("name", "tag", ""); err != nil || strings.ContainsAny(o.Proxy, "@") {
		return nil, fmt.Errorf("%w: a proxy of %q: want HOST[:PORT][/PREFIX] of a registry", ErrInvalid, o.Proxy)
	}
	ro := o.Upstream
	if ro.UserAgent == "" {
		ro.UserAgent = "manifestctl"
	}
	s.self = "proxy " + rand.Text()
	ro.UserAgent += " (" + s.self + ")"
	p.up = registry.New(ro)
	p.life, p.end = context.WithCancel(context.Background()) //nolint:forbidigo // no request's
	return p, nil
}

// Close ends the fills that run.
func (p *proxied) Close() error {
	p.end()
	p.running.Wait()
	return p.directory.Close()
}

// ref is what a repository's tag or digest is called there.
func (p *proxied) ref(repo, tag string, d digest.Digest) (ref.Ref, error) {
	name := "docker://" + p.at + "/" + repo
	if d != "" {
		return ref.Parse(name + "@" + d.String())
	}
	return ref.Parse(name + ":" + tag)
}

// ask asks the other registry. kept answers instead when it cannot be asked, and says errUnknown if it does not know either.
func (p *proxied) ask(ctx context.Context, repo, tag string, d digest.Digest, f func(ref.Ref) error, kept func() error) error {
	r, err := p.ref(repo, tag, d)
	if err != nil {
		return errUnknown // a name that registries have, and that one cannot
	}
	if p.s.now().UnixNano() < p.down.Load() {
		if err := kept(); !errors.Is(err, errUnknown) {
			return err
		}
	}
	err = f(r)
	switch {
	case err == nil:
		p.down.Store(0)
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, registry.ErrNotFound):
		return errUnknown
	case errors.Is(err, registry.ErrDenied):
		p.s.log.Warn("the other registry denies", "name", r.String(), "error", err)
		return codeUpstreamDenies
	}
	p.down.Store(p.s.now().Add(downFor).UnixNano())
	p.s.log.Warn("the other registry cannot be asked", "name", r.String(), "error", err)
	if err := kept(); !errors.Is(err, errUnknown) {
		return err
	}
	return codeUpstream
}

// nothingKept is the answer of those who keep nothing.
func nothingKept() error { return errUnknown }

// Resolve implements storage.
func (p *proxied) Resolve(ctx context.Context, repo, tag string) (desc ocispec.Descriptor, err error) {
	asked := false
	err = p.ask(ctx, repo, tag, "", func(r ref.Ref) error {
		desc, err = p.up.Resolve(ctx, r)
		asked = err == nil
		return err
	}, func() error {
		desc, err = p.directory.Resolve(ctx, repo, tag)
		return err
	})
	switch {
	case errors.Is(err, errUnknown):
		if err := p.directory.DeleteTag(ctx, repo, tag); err != nil && !errors.Is(err, errUnknown) {
			return desc, err
		}
		return desc, errUnknown
	case err != nil || !asked:
		return desc, err
	}
	if now, err := p.directory.Resolve(ctx, repo, tag); err == nil && now.Digest == desc.Digest {
		return desc, nil
	}
	doc, err := p.document(ctx, repo, desc.Digest)
	if err != nil {
		return desc, err
	}
	return desc, p.keep(ctx, repo, doc, []string{tag})
}

// Manifest implements storage.
func (p *proxied) Manifest(ctx context.Context, repo string, d digest.Digest) (ocispec.Descriptor, []byte, error) {
	doc, err := p.document(ctx, repo, d)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	return ocispec.Descriptor{MediaType: doc.MediaType, Digest: d, Size: doc.Size}, doc.raw, nil
}

// document is a manifest that was kept, or is from now on.
func (p *proxied) document(ctx context.Context, repo string, d digest.Digest) (*document, error) {
	desc, raw, err := p.directory.Manifest(ctx, repo, d)
	kept := err == nil
	if errors.Is(err, errUnknown) {
		err = p.ask(ctx, repo, "", d, func(r ref.Ref) error {
			desc, raw, err = p.up.Manifest(ctx, r)
			return err
		}, nothingKept)
	}
	if err != nil {
		return nil, err
	}
	doc, err := parseDocument(desc.MediaType, raw)
	if err != nil {
		return nil, codeManifestUnknown.with("the manifest of the other registry is none here: " + err.Error())
	}
	doc.Digest = d
	p.learn(repo, doc)
	if kept {
		return doc, nil
	}
	return doc, p.keep(ctx, repo, doc, nil)
}

// keep keeps a manifest, unless there is no room: then it is only passed on.
func (p *proxied) keep(ctx context.Context, repo string, doc *document, tags []string) error {
	defer p.s.repos.lock(repo)()
	err := p.s.putDocument(ctx, repo, doc, tags)
	var full *apiError
	if errors.As(err, &full) && full.code == codeQuota.code {
		p.s.log.Warn("a manifest was not kept", "repo", repo, "digest", doc.Digest, "error", err)
		return nil
	}
	return err
}

// learn remembers how long the blobs of a manifest are.
func (p *proxied) learn(repo string, doc *document) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range doc.needs {
		if len(p.sizes) >= maxSizes {
			clear(p.sizes)
		}
		if !n.child {
			p.sizes[fillKey{repo, n.digest}] = n.size
		}
	}
}

// HasRepo implements storage. Whether the other registry has it shows when something of it is asked for.
func (p *proxied) HasRepo(context.Context, string) (bool, error) { return true, nil }

// Tags implements storage.
func (p *proxied) Tags(ctx context.Context, repo string) (tags []string, err error) {
	err = p.ask(ctx, repo, "latest", "", func(r ref.Ref) error {
		tags, err = p.up.Tags(ctx, r)
		return err
	}, func() error {
		tags, err = p.directory.Tags(ctx, repo)
		if err == nil && len(tags) == 0 {
			err = errUnknown
		}
		return err
	})
	return tags, err
}

// Referrers implements storage.
func (p *proxied) Referrers(ctx context.Context, repo string, d digest.Digest) (list []ocispec.Descriptor, err error) {
	err = p.ask(ctx, repo, "", d, func(r ref.Ref) error {
		list, _, err = p.up.Referrers(ctx, r, d)
		return err
	}, func() error {
		list, err = p.directory.Referrers(ctx, repo, d)
		return err
	})
	if errors.Is(err, errUnknown) {
		return nil, nil
	}
	return list, err
}

// StatBlob implements storage.
func (p *proxied) StatBlob(ctx context.Context, repo string, d digest.Digest) (int64, error) {
	f, err := p.OpenBlob(ctx, repo, d)
	if err != nil {
		return 0, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	return size, errors.Join(err, f.Close())
}

// OpenBlob implements storage. A blob that was not kept is read while it arrives; nothing is fetched before somebody reads.
func (p *proxied) OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	f, err := p.directory.OpenBlob(ctx, repo, d)
	if !errors.Is(err, errUnknown) {
		return f, err
	}
	key := fillKey{repo, d}
	if f := p.filling(key); f != nil {
		return f, nil
	}
	var size int64
	err = p.ask(ctx, repo, "", d, func(r ref.Ref) error {
		size, err = p.sizeOf(ctx, repo, r, d)
		return err
	}, nothingKept)
	switch {
	case err != nil:
		return nil, err
	case size < 0: // another repository's was kept, and this one has it too
		return p.directory.OpenBlob(ctx, repo, d)
	case p.s.limits.Blob > 0 && size > p.s.limits.Blob:
		return nil, codeTooLarge.with(fmt.Sprintf("the blob is larger than %d bytes, the most that this registry takes", p.s.limits.Blob))
	}
	return p.fill(ctx, key, size)
}

// sizeOf is how long a blob of the other registry is. It is less than 0 when the content is here, of another repository, and
// was made this one's.
func (p *proxied) sizeOf(ctx context.Context, repo string, r ref.Ref, d digest.Digest) (int64, error) {
	if _, err := os.Stat(p.path(blobsDir, blobPath(d))); err == nil {
		if _, err := p.up.BlobSize(ctx, r, d); err != nil {
			return 0, err
		}
		if err := p.MountBlob(ctx, repo, d, ""); err == nil {
			return -1, nil
		}
	}
	p.mu.Lock()
	size, ok := p.sizes[fillKey{repo, d}]
	p.mu.Unlock()
	if ok {
		return size, nil
	}
	return p.up.BlobSize(ctx, r, d)
}
