package llb

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/moby/buildkit/solver/pb"

	"github.com/manifestctl/manifestctl/pkg/graph"
)

// sourceAttrs are the attributes of a source; empty values are left out.
type sourceAttrs map[string]string

func (a sourceAttrs) set(key, value string) {
	if value != "" {
		a[key] = value
	}
}

func (a sourceAttrs) flag(key string, value bool) {
	if value {
		a[key] = "true"
	}
}

func (a sourceAttrs) list(key string, value []string) {
	if value == nil {
		return
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return // of strings there is always one
	}
	a[key] = string(raw)
}

// source encodes what is fetched by the daemon, or read from this side by a name.
func (e *encoder) source(v *graph.Vertex) (*pb.Input, error) {
	a := sourceAttrs{}
	var id string
	switch op := v.Op.(type) {
	case graph.Local:
		if !op.Raw {
			return nil, fmt.Errorf("%s: files of a spec in LLB: %w", v.Meta.Source, ErrUnsupported)
		}
		id = "local://" + op.Context
		a.list(pb.AttrIncludePatterns, op.Include)
		a.list(pb.AttrExcludePatterns, op.Exclude)
		a.list(pb.AttrFollowPaths, op.Follow)
		a.set(pb.AttrSharedKeyHint, op.Context)
	case graph.HTTP:
		id = op.URL
		a.set(pb.AttrHTTPFilename, op.Filename)
		a.set(pb.AttrHTTPChecksum, op.Checksum)
		a.set(pb.AttrHTTPAuthHeaderSecret, op.AuthSecret)
		a.set(pb.AttrHTTPPerm, "0"+strconv.FormatUint(uint64(op.Mode), 8))
		if op.UID != 0 {
			a.set(pb.AttrHTTPUID, strconv.Itoa(op.UID))
		}
		if op.GID != 0 {
			a.set(pb.AttrHTTPGID, strconv.Itoa(op.GID))
		}
		for name, value := range op.Headers {
			a[pb.AttrHTTPHeaderPrefix+name] = value
		}
	case graph.Git:
		id = "git://" + gitPlace(op.Remote)
		if op.Ref != "" || op.Subdir != "" {
			id += "#" + op.Ref
		}
		if op.Subdir != "" {
			id += ":" + op.Subdir
		}
		a.set(pb.AttrFullRemoteURL, op.Remote)
		a.set(pb.AttrGitChecksum, op.Checksum)
		a.flag(pb.AttrKeepGitDir, op.KeepGitDir)
		a.flag(pb.AttrGitSkipSubmodules, op.NoSubmodule)
		a.flag(pb.AttrGitFetchByCommit, op.ByCommit)
		a.set(pb.AttrAuthTokenSecret, op.TokenSecret)
		a.set(pb.AttrAuthHeaderSecret, op.HeaderSecret)
		a.set(pb.AttrMountSSHSock, op.SSHAgent)
		a.set(pb.AttrKnownSSHHosts, op.KnownHosts)
		if op.CommitTime {
			a[pb.AttrGitMTime] = "commit"
		}
	}
	return e.op(v, &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: id, Attrs: a}}}, 0)
}

// gitPlace is HOST/PATH of a remote: the name of a git source, which its full URL goes with.
func gitPlace(remote string) string {
	if u, err := url.Parse(remote); err == nil && u.Host != "" {
		return u.Host + u.Path
	}
	if _, rest, ok := strings.Cut(remote, "@"); ok { // user@host:path
		remote = rest
	}
	return strings.Replace(remote, ":", "/", 1)
}
