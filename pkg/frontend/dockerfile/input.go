package dockerfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/util/gitutil"
	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/llb"
)

// ErrInput is the kind of errors for contexts and Dockerfiles that are not there or cannot be one.
var ErrInput = errors.New("cannot be built")

// Input is where a Dockerfile and its files come from.
type Input struct {
	// Context is a directory, or the URL of a git repository, of an archive or of a single Dockerfile. "" is an empty context.
	Context string
	// Archive is a tar file on this machine (plain or compressed) that is the context; then Context is "".
	Archive string
	// File is the Dockerfile's path on this machine; with a remote context, or an archive, its path there. "" is "Dockerfile".
	File string
	// Local says that File is on this machine although the context is not.
	Local bool
	// Contexts are named contexts: directories, docker-image://, oci-layout://, or URLs of git and archives.
	Contexts map[string]Context
}

// Context is a named context.
type Context struct {
	Value string // as on the command line
	// Dir is the directory of an OCI layout, and Digest what in it is meant: Value begins with oci-layout://.
	Ref    string
	Digest digest.Digest
}

// The names of local directories. dockerui's own are context and dockerfile.
const (
	contextName    = "context"
	dockerfileName = "dockerfile"
	archiveName    = "archive"
	// archiveURL stands for an archive of this machine: the frontend reads archives from URLs only.
	archiveURL = "http://archive.invalid/context"
)

// input is an Input, resolved.
type input struct {
	dirs  map[string]string // local name → directory
	attrs map[string]string
	refs  map[string]string // store of an OCI layout → reference without digest
	file  string            // how messages call the Dockerfile
}

// IsRemote reports whether a context is a URL rather than a directory.
func IsRemote(context string) bool {
	if strings.HasPrefix(context, "http://") || strings.HasPrefix(context, "https://") {
		return true
	}
	if _, err := gitutil.ParseURL(context); err == nil {
		return true
	}
	return strings.HasPrefix(context, "github.com/")
}

func (i Input) resolve() (*input, error) {
	out := &input{dirs: map[string]string{}, attrs: map[string]string{}, refs: map[string]string{}}
	name := "Dockerfile"
	remote := i.Archive != "" || IsRemote(i.Context)
	switch {
	case i.Archive != "":
		out.attrs[contextName] = archiveURL
		out.dirs[archiveName] = filepath.Dir(i.Archive)
	case remote:
		out.attrs[contextName] = i.Context
	default:
		out.dirs[contextName] = i.Context
	}
	switch {
	case remote && !i.Local:
		if i.File != "" {
			name = filepath.ToSlash(i.File)
		}
	case i.File == "":
		out.dirs[dockerfileName] = i.Context
	default:
		out.dirs[dockerfileName], name = filepath.Dir(i.File), filepath.Base(i.File)
		if remote {
			out.attrs["dockerfilekey"] = dockerfileName
		}
	}
	if dir, ok := out.dirs[dockerfileName]; ok {
		name = lowercase(dir, name)
	}
	out.attrs["filename"] = name
	out.file = name
	return out, out.named(i.Contexts)
}

// lowercase is the name that a Dockerfile has: "dockerfile" when there is no "Dockerfile".
func lowercase(dir, name string) string {
	if name != "Dockerfile" {
		return name
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return name
	}
	found := name
	for _, e := range entries {
		switch e.Name() {
		case name:
			return name
		case "dockerfile":
			found = "dockerfile"
		}
	}
	return found
}

// named adds the named contexts.
func (in *input) named(contexts map[string]Context) error {
	for name, c := range contexts {
		key := "context:" + name
		in.attrs["frontend.caps"] = "moby.buildkit.frontend.contexts+forward"
		switch {
		case c.Ref != "":
			store := fmt.Sprintf("layout%d", len(in.refs))
			in.refs[store] = c.Ref
			in.attrs[key] = "oci-layout://" + store + "@" + c.Digest.String()
		case strings.HasPrefix(c.Value, "docker-image://"), IsRemote(c.Value):
			in.attrs[key] = c.Value
		case strings.HasPrefix(c.Value, "target:"), strings.HasPrefix(c.Value, "input:"):
			return fmt.Errorf("%w: context %s: %s is for bake files", ErrInput, name, c.Value)
		default:
			info, err := os.Stat(c.Value)
			if err != nil {
				return fmt.Errorf("%w: context %s: %w", ErrInput, name, err)
			}
			if !info.IsDir() {
				return fmt.Errorf("%w: context %s: %q is not a directory", ErrInput, name, c.Value)
			}
			local := name
			if local == contextName || local == dockerfileName || local == archiveName {
				local = "_" + local
			}
			in.dirs[local] = c.Value
			in.attrs[key] = "local:" + local
		}
	}
	return nil
}

// decoding is how a definition of this build is read.
func (b *bridge) decoding() llb.Options {
	return llb.Options{
		File: b.in.file, Platform: b.o.Machine, Allow: b.o.Allow, Proxy: b.o.Proxy, Devices: b.o.Devices, Warn: b.leftOut,
		Layout: func(name string, d digest.Digest) (string, bool) {
			ref, ok := b.in.refs[name]
			return ref + "@" + d.String(), ok
		},
		Files: func(url string) (name, file string, ok bool) {
			return archiveName, filepath.Base(b.o.Archive), url == archiveURL && b.o.Archive != ""
		},
	}
}
