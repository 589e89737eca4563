package serve

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
)

// Limits bound what clients can make the registry hold. Zero is no limit, but of
// Manifest, which is 4 MiB then: what every registry must accept.
type Limits struct {
	Total    int64 // bytes of all content, with what is being uploaded
	Blob     int64 // bytes of one blob
	Manifest int64 // bytes of one manifest
}

func (l Limits) check() error {
	if l.Total < 0 || l.Blob < 0 || l.Manifest < 0 || l.Manifest > 64<<20 {
		return fmt.Errorf("%w: limits are not negative, and manifests have at most 64 MiB: they are kept in memory", ErrInvalid)
	}
	return nil
}

func (l Limits) manifest() int64 {
	if l.Manifest == 0 {
		return maxManifest
	}
	return l.Manifest
}

// quota counts bytes of content.
type quota struct {
	limit int64 // 0: none
	used  atomic.Int64
}

// take claims n bytes, or refuses.
func (q *quota) take(n int64) error {
	if used := q.used.Add(n); q.limit > 0 && used > q.limit {
		q.used.Add(-n)
		return codeQuota.with(fmt.Sprintf("the registry is full: it may hold %d bytes", q.limit))
	}
	return nil
}

func (q *quota) give(n int64) { q.used.Add(-n) }

// metered is an upload that is counted.
type metered struct {
	upload
	quota   *quota
	max     int64 // bytes of one blob; 0: no limit
	n, mark int64
	over    bool // ended: nothing is ours any more
}

func (m *metered) Write(p []byte) (int, error) {
	if m.max > 0 && m.n+int64(len(p)) > m.max {
		return 0, codeTooLarge.with(fmt.Sprintf("the blob is larger than %d bytes, the most that this registry takes", m.max))
	}
	if err := m.quota.take(int64(len(p))); err != nil {
		return 0, err
	}
	n, err := m.upload.Write(p)
	m.quota.give(int64(len(p) - n))
	m.n += int64(n)
	return n, err
}

func (m *metered) Mark() error {
	m.mark = m.n
	return m.upload.Mark()
}

func (m *metered) Rewind() error {
	err := m.upload.Rewind()
	if err == nil {
		m.quota.give(m.n - m.mark)
		m.n = m.mark
	}
	return err
}

func (m *metered) Commit(ctx context.Context, repo string, want digest.Digest) (had bool, err error) {
	had, err = m.upload.Commit(ctx, repo, want)
	if err != nil || had {
		m.release()
	}
	m.over = true
	return had, err
}

func (m *metered) Abort() {
	m.release()
	m.over = true
	m.upload.Abort()
}

func (m *metered) release() {
	if !m.over {
		m.quota.give(m.n)
		m.over = true
	}
}

// newUpload is a blob that arrives, within the limits.
func (s *Server) newUpload(ctx context.Context, algo digest.Algorithm) (upload, error) {
	if err := s.room(ctx, 1); err != nil {
		return nil, err
	}
	up, err := s.content.NewUpload(ctx, algo)
	if err != nil {
		return nil, err
	}
	return &metered{upload: up, quota: &s.quota, max: s.limits.Blob}, nil
}

// putDocument stores a manifest, within the limits.
func (s *Server) putDocument(ctx context.Context, repo string, doc *document, tags []string) error {
	if err := s.room(ctx, doc.Size); err != nil {
		return err
	}
	if err := s.quota.take(doc.Size); err != nil {
		return err
	}
	had, err := s.content.PutManifest(ctx, repo, doc, tags)
	if err != nil || had {
		s.quota.give(doc.Size)
	}
	return err
}

// fits refuses a body that is announced to be too long before it is read.
func (s *Server) fits(ctx context.Context, length int64) error {
	if s.limits.Blob > 0 && length > s.limits.Blob {
		return codeTooLarge.with(fmt.Sprintf("the blob is larger than %d bytes, the most that this registry takes", s.limits.Blob))
	}
	return s.room(ctx, length)
}

// room refuses what is more than the limit leaves, after what was deleted has gone.
func (s *Server) room(ctx context.Context, length int64) error {
	over := func() bool { return s.limits.Total > 0 && length > 0 && s.quota.used.Load()+length > s.limits.Total }
	if over() {
		s.collect(ctx)
	}
	if over() {
		return codeQuota.with(fmt.Sprintf("the registry is full: it may hold %d bytes", s.limits.Total))
	}
	return nil
}
