package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// maxRemoteFile is the longest Dockerfile that is fetched, in bytes.
const maxRemoteFile = 16 << 20

// isRemoteFile reports whether -f is a URL.
func isRemoteFile(file string) bool {
	return strings.HasPrefix(file, "https://") || strings.HasPrefix(file, "http://")
}

// remoteDockerfile fetches the Dockerfile that -f names; the context is what it is without it.
func (b *buildFlags) remoteDockerfile(ctx context.Context, e *env, req *build.Request, dir string) (done func() error, err error) {
	done = func() error { return nil }
	u, err := url.Parse(b.file)
	switch {
	case err != nil:
		return done, usagef("-f: %w", err)
	case isSpec(u.Path):
		return done, usagef("-f %s: a spec is a file of this machine", u.Redacted()).withHint("curl -O it first; only a Dockerfile may be at a URL")
	}
	req.Dockerfile = &build.Dockerfile{Stdin: true, Local: true}
	switch {
	case dir == "-":
		in, err := readStdin(e.stdin)
		if err != nil {
			return done, err
		}
		done = in.close
		if !in.archive {
			return done, usagef("standard input is a Dockerfile, and so is -f %s", u.Redacted())
		}
		req.Dockerfile.Archive = in.path
	case build.IsRemoteContext(dir):
		req.ContextDir = dir
	default:
		if err := mustBeDir(dir); err != nil {
			return done, usagef("the context: %w", err)
		}
		req.ContextDir = dir
	}
	file, err := fetchDockerfile(ctx, u)
	if err != nil {
		return done, err
	}
	req.File = file.path
	of := done
	return func() error { return errors.Join(of(), file.close()) }, nil
}

// fetchDockerfile keeps the Dockerfile at u.
func fetchDockerfile(ctx context.Context, u *url.URL) (*keptInput, error) {
	resp, err := source.Fetch(ctx, source.HTTPRequest{URL: u.String()})
	if err != nil {
		return nil, fmt.Errorf("-f: %w", err)
	}
	file, err := keepInput(io.LimitReader(resp.Body, maxRemoteFile+1), u.Redacted())
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, errors.Join(err, file.close())
	}
	size, err := file.size()
	switch {
	case err != nil:
	case size > maxRemoteFile:
		err = usagef("-f %s: it is longer than %d bytes", u.Redacted(), maxRemoteFile)
	case file.archive:
		err = usagef("-f %s: it is an archive, not a Dockerfile", u.Redacted()).withHint("an archive can be the context: manifestctl build %s", u.Redacted())
	}
	if err != nil {
		return nil, errors.Join(err, file.close())
	}
	return file, nil
}
