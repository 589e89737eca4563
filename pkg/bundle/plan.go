package bundle

import (
	"archive/tar"
	"bytes"
	"fmt"
	"path"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/opencontainers/go-digest"
)

const block = 512

// member is one entry of the tar: a directory, a file whose bytes are known, or a blob.
type member struct {
	name   string
	dir    bool
	raw    []byte             // of a file that is no blob of the contents
	desc   ocispec.Descriptor // of a blob
	at     int64              // where its header begins
	header int                // bytes of its header
}

func (m *member) size() int64 {
	switch {
	case m.dir:
		return 0
	case m.desc.Digest != "":
		return m.desc.Size
	}
	return int64(len(m.raw))
}

// data is where its bytes begin, end where the next header does.
func (m *member) data() int64 { return m.at + int64(m.header) }
func (m *member) end() int64  { return m.data() + padded(m.size()) }

func padded(n int64) int64 { return (n + block - 1) / block * block }

// plan is where everything lies in the archive of some contents.
type plan struct {
	contents Contents
	members  []member
	size     int64
}

// newPlan lays out an archive.
func newPlan(c Contents) (*plan, error) {
	list, err := c.Encode()
	if err != nil {
		return nil, err
	}
	desc := ocispec.Descriptor{MediaType: MediaType, Digest: digest.FromBytes(list), Size: int64(len(list))}
	idx, err := c.Index(desc.Digest)
	if err != nil {
		return nil, err
	}
	layout, err := jsontree.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return nil, err
	}
	p := &plan{contents: c}
	made := map[string]bool{".": true}
	var directory func(name string)
	directory = func(name string) {
		if !made[name] {
			directory(path.Dir(name))
			made[name] = true
			p.members = append(p.members, member{name: name + "/", dir: true})
		}
	}
	p.members = append(p.members, member{name: ocispec.ImageLayoutFile, raw: layout}, member{name: ocispec.ImageIndexFile, raw: idx})
	blob := func(m member) {
		m.name = blobName(m.desc.Digest)
		directory(path.Dir(m.name))
		p.members = append(p.members, m)
	}
	blob(member{desc: desc, raw: list})
	for _, d := range c.Documents {
		blob(member{desc: d})
	}
	for _, d := range c.Blobs {
		blob(member{desc: d})
	}
	for i := range p.members {
		m := &p.members[i]
		h, err := m.headerBytes()
		if err != nil {
			return nil, err
		}
		m.at, m.header = p.size, len(h)
		p.size = m.end()
	}
	p.size += 2 * block // the end of a tar
	return p, nil
}

// headerBytes makes the header, which may be of several blocks.
func (m *member) headerBytes() ([]byte, error) {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: m.name, Mode: 0o644, Size: m.size(), ModTime: time.Unix(0, 0)}
	if m.dir {
		h.Typeflag, h.Mode = tar.TypeDir, 0o755
	}
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(h); err != nil {
		return nil, fmt.Errorf("%s: %w", m.name, err)
	}
	return b.Bytes(), nil
}

func blobName(d digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// Size is how many bytes the archive of some contents has.
func Size(c Contents) (int64, error) {
	p, err := newPlan(c)
	if err != nil {
		return 0, err
	}
	return p.size, nil
}
