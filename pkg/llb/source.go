package llb

import (
	"encoding/json"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

// attributes are those of a source, taken out as they are understood.
type attributes struct {
	d    *decoder
	op   *operation
	left map[string]string
}

func (a *attributes) take(key string) string {
	v := a.left[key]
	delete(a.left, key)
	return v
}

func (a *attributes) flag(key string) bool { return a.take(key) == "true" }

// number is an attribute that is a number, by default what it is given.
func (a *attributes) number(key string, base, byDefault int) int {
	v, ok := a.left[key]
	if !ok {
		return byDefault
	}
	n, err := strconv.ParseInt(a.take(key), base, 32)
	if err != nil || n < 0 {
		a.d.fail(a.op, ErrInvalid, "%s %q is no number", key, v)
		return byDefault
	}
	return int(n)
}

// list is an attribute that is a JSON list of strings.
func (a *attributes) list(key string) []string {
	v := a.take(key)
	if v == "" {
		return nil
	}
	var out []string
	if err := json.Unmarshal([]byte(v), &out); err != nil {
		a.d.fail(a.op, ErrInvalid, "%s is no list: %v", key, err)
	}
	return out
}

// finish refuses what was not understood.
func (a *attributes) finish() bool {
	if len(a.left) > 0 {
		names := make([]string, 0, len(a.left))
		for k := range a.left {
			names = append(names, k)
		}
		slices.Sort(names)
		a.d.fail(a.op, ErrUnsupported, "%s", strings.Join(names, ", "))
	}
	return !a.d.failed[a.op.digest]
}

func (d *decoder) source(op *operation, s *pb.SourceOp) *graph.Vertex {
	scheme, rest, ok := strings.Cut(s.GetIdentifier(), "://")
	if !ok || rest == "" {
		d.fail(op, ErrInvalid, "source %q", s.GetIdentifier())
		return nil
	}
	a := &attributes{d: d, op: op, left: map[string]string{}}
	for k, v := range s.Attrs {
		if !texts(k, v) {
			d.fail(op, ErrInvalid, "attribute %q is not text", k)
			return nil
		}
		a.left[k] = v
	}
	if !texts(rest) {
		d.fail(op, ErrInvalid, "source %q is not text", rest)
		return nil
	}
	var out graph.Op
	var p platform.Platform
	switch scheme {
	case "docker-image":
		out, p = d.image(a, rest), d.platformOf(op)
	case "oci-layout":
		out, p = d.layout(a, rest), d.platformOf(op)
	case "local":
		out = d.local(a, rest)
	case "http", "https":
		out = d.http(a, s.Identifier)
	case "git":
		out = d.git(a, rest)
	default:
		d.fail(op, ErrUnsupported, "source %s://", scheme)
		return nil
	}
	if !a.finish() || out == nil {
		return nil
	}
	return graph.New(out, p, d.meta(op))
}

func (d *decoder) image(a *attributes, name string) graph.Op {
	r, err := ref.Parse(name)
	if err != nil || r.Kind != ref.Registry {
		d.fail(a.op, ErrInvalid, "image %q: it is no reference", name)
		return nil
	}
	out := graph.Image{Ref: r.String(), FilesOnly: true}
	switch mode := a.take(pb.AttrImageResolveMode); mode {
	case "", pb.AttrImageResolveModeDefault, pb.AttrImageResolveModePreferLocal:
	case pb.AttrImageResolveModeForcePull:
		out.Pull = true
	default:
		d.fail(a.op, ErrInvalid, "%s %q", pb.AttrImageResolveMode, mode)
	}
	a.take(pb.AttrImageRecordType) // names the kind of a record in BuildKit's history
	out.Layers = a.limit(pb.AttrImageLayerLimit)
	if out.Checksum = a.take(pb.AttrImageChecksum); out.Checksum != "" {
		if _, err := digest.Parse(out.Checksum); err != nil {
			d.fail(a.op, ErrInvalid, "%s %q is no digest", pb.AttrImageChecksum, out.Checksum)
		}
	}
	return out
}

func (a *attributes) limit(key string) *int {
	if _, ok := a.left[key]; !ok {
		return nil
	}
	n := a.number(key, 10, 0)
	if n <= 0 {
		a.d.fail(a.op, ErrInvalid, "%s must be more than 0", key)
	}
	return &n
}

func (d *decoder) layout(a *attributes, name string) graph.Op {
	store, dgst, ok := strings.Cut(name, "@")
	id, err := digest.Parse(dgst)
	if !ok || err != nil {
		d.fail(a.op, ErrInvalid, "image %q of a layout: it has no digest", name)
		return nil
	}
	store, _, _ = strings.Cut(store, ":")
	a.take(pb.AttrOCILayoutSessionID) // says which client has it
	if s := a.take(pb.AttrOCILayoutStoreID); s != "" {
		store = s
	}
	var text string
	if d.o.Layout != nil {
		text, ok = d.o.Layout(store, id)
	}
	if d.o.Layout == nil || !ok {
		d.fail(a.op, ErrInvalid, "there is no OCI layout %q: give it with --build-context NAME=oci-layout://DIR", store)
		return nil
	}
	return graph.Image{Ref: text, FilesOnly: true, Layers: a.limit(pb.AttrOCILayoutLayerLimit)}
}

func (d *decoder) local(a *attributes, name string) graph.Op {
	out := graph.Local{
		Context: name, Raw: true,
		Include: a.list(pb.AttrIncludePatterns), Exclude: a.list(pb.AttrExcludePatterns), Follow: a.list(pb.AttrFollowPaths),
	}
	// Which client has it, and how it is told what changed since the last time: here it is on this machine.
	for _, key := range []string{pb.AttrLocalSessionID, pb.AttrLocalUniqueID, pb.AttrSharedKeyHint, pb.AttrLocalDiffer} {
		a.take(key)
	}
	return out
}

func (d *decoder) http(a *attributes, address string) graph.Op {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		d.fail(a.op, ErrInvalid, "source %q is no URL", address)
		return nil
	}
	if d.o.Files != nil {
		if context, file, ok := d.o.Files(address); ok {
			a.left = nil
			return graph.Local{Context: context, Raw: true, Include: []string{file}}
		}
	}
	out := graph.HTTP{
		URL: address, Filename: a.take(pb.AttrHTTPFilename), Checksum: a.take(pb.AttrHTTPChecksum),
		UID: a.number(pb.AttrHTTPUID, 10, 0), GID: a.number(pb.AttrHTTPGID, 10, 0), AuthSecret: a.take(pb.AttrHTTPAuthHeaderSecret),
	}
	// BuildKit reads the mode as any number of Go: 0600 is octal. 0 is its default.
	if out.Mode = uint32(a.number(pb.AttrHTTPPerm, 0, 0)); out.Mode == 0 {
		out.Mode = 0o600
	}
	if out.Mode > 0o7777 {
		d.fail(a.op, ErrInvalid, "%s %#o", pb.AttrHTTPPerm, out.Mode)
	}
	if strings.ContainsAny(out.Filename, "/\x00") || out.Filename == ".." || out.Filename == "." {
		d.fail(a.op, ErrInvalid, "%s %q is no file name", pb.AttrHTTPFilename, out.Filename)
	}
	if out.Checksum != "" {
		if _, err := digest.Parse(out.Checksum); err != nil {
			d.fail(a.op, ErrInvalid, "%s %q is no digest", pb.AttrHTTPChecksum, out.Checksum)
		}
	}
	for k := range a.left {
		if h, ok := strings.CutPrefix(k, pb.AttrHTTPHeaderPrefix); ok {
			if out.Headers == nil {
				out.Headers = map[string]string{}
			}
			out.Headers[h] = a.take(k)
		}
	}
	return out
}

func (d *decoder) git(a *attributes, rest string) graph.Op {
	place, fragment, _ := strings.Cut(rest, "#")
	name, subdir, _ := strings.Cut(fragment, ":")
	out := graph.Git{
		Remote: a.take(pb.AttrFullRemoteURL), Ref: name, Subdir: strings.Trim(filepath.ToSlash(subdir), "/"),
		Checksum: a.take(pb.AttrGitChecksum), KeepGitDir: a.flag(pb.AttrKeepGitDir), NoSubmodule: a.flag(pb.AttrGitSkipSubmodules),
		ByCommit: a.flag(pb.AttrGitFetchByCommit), TokenSecret: a.take(pb.AttrAuthTokenSecret), HeaderSecret: a.take(pb.AttrAuthHeaderSecret),
		SSHAgent: a.take(pb.AttrMountSSHSock), KnownHosts: a.take(pb.AttrKnownSSHHosts),
	}
	if out.Remote == "" {
		out.Remote = "https://" + place
	}
	out.Remote, _, _ = strings.Cut(out.Remote, "#")
	switch m := a.take(pb.AttrGitMTime); m {
	case "", "checkout":
	case "commit":
		out.CommitTime = true
	default:
		d.fail(a.op, ErrInvalid, "%s %q", pb.AttrGitMTime, m)
	}
	a.take(pb.AttrGitAdvice) // git's own hints in its output
	if strings.HasPrefix(out.Ref, "-") || strings.HasPrefix(out.Remote, "-") || strings.HasPrefix(out.Checksum, "-") {
		d.fail(a.op, ErrInvalid, "git source %q begins with a dash", rest)
	}
	if out.Subdir != "" && !filepath.IsLocal(out.Subdir) {
		d.fail(a.op, ErrInvalid, "git source %q: the directory is not in the repository", rest)
	}
	return out
}
