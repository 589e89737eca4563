package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/build"
)

// The files a build is made from when -f is not given.
const (
	specFile   = "rootfs.yaml"
	dockerFile = "Dockerfile"

	lowerDockerFile = "dockerfile"
)

// inputFlags are the flags that decide what a spec means.
type inputFlags struct {
	platforms []string
	args      []string
	contexts  []string
}

func (in *inputFlags) add(f *pflag.FlagSet) {
	f.StringSliceVar(&in.platforms, "platform", nil, "`OS/ARCH[/VARIANT],...` platforms, instead of the spec's; local is this machine")
	f.StringArrayVar(&in.args, "build-arg", nil, "`NAME[=VALUE]` set an argument of the spec or Dockerfile, without a value to the environment's; may be repeated")
	f.StringArrayVar(&in.contexts, "build-context", nil, "`NAME=DIR` another directory that sources can come from; in Dockerfiles also an image or URL; may be repeated")
}

// request fills in what the flags and the environment say.
func (in *inputFlags) request(e *env, req *build.Request) (err error) {
	platforms := in.platforms
	if len(platforms) == 0 && req.Dockerfile != nil {
		platforms = platformOfDocker(e)
	}
	if req.Platforms, err = parsePlatforms(platforms); err != nil {
		return err
	}
	if req.Args, err = keyValues("build-arg", in.args, e.lookup); err != nil {
		return err
	}
	if req.Contexts, err = keyValues("build-context", in.contexts, nil); err != nil {
		return err
	}
	if req.Dockerfile != nil {
		req.Args = proxyArgs(e, req.Args)
		return in.dockerfileEpoch(e, req)
	}
	for name, dir := range req.Contexts {
		if err := mustBeDir(dir); err != nil {
			return usagef("--build-context %s: %w", name, err)
		}
	}
	req.Epoch, err = epoch(e, req.Args)
	return err
}

// dockerfileEpoch gives SOURCE_DATE_EPOCH to the Dockerfile as an argument: it may name a stage, or the context.
func (in *inputFlags) dockerfileEpoch(e *env, req *build.Request) error {
	const name = "SOURCE_DATE_EPOCH"
	if _, ok := req.Args[name]; !ok {
		v, ok := e.lookup(name)
		if !ok || v == "" {
			return nil
		}
		if req.Args == nil {
			req.Args = map[string]string{}
		}
		req.Args[name] = v
	}
	if seconds, err := strconv.ParseInt(req.Args[name], 10, 64); err == nil {
		if seconds < 0 {
			return usagef("%s %q: want seconds since 1970", name, req.Args[name])
		}
		req.Epoch = &seconds
	}
	return nil
}

// epoch reads SOURCE_DATE_EPOCH, once: the build argument of that name wins over the environment.
func epoch(e *env, args map[string]string) (*int64, error) {
	const name = "SOURCE_DATE_EPOCH"
	v, ok := args[name]
	if ok {
		delete(args, name)
	} else if v = e.getenv(name); v == "" {
		return nil, nil
	}
	seconds, err := strconv.ParseInt(v, 10, 64)
	if err != nil || seconds < 0 {
		return nil, usagef("%s %q: want seconds since 1970", name, v)
	}
	return &seconds, nil
}

// inputFile chooses the file a build is made from: file when it is given, else exactly one of rootfs.yaml and
// Dockerfile in dir.
func inputFile(file, dir string) (string, error) {
	if err := mustBeDir(dir); err != nil {
		return "", usagef("the context: %w", err).withHint("usage: manifestctl build [flags] [CONTEXT]")
	}
	if file == "" {
		var found []string
		for _, name := range []string{specFile, dockerFile, lowerDockerFile} {
			path := filepath.Join(dir, name)
			if _, err := os.Lstat(path); err == nil {
				found = append(found, path)
			} else if !errors.Is(err, fs.ErrNotExist) {
				return "", usagef("%w", err)
			}
		}
		switch {
		case len(found) == 0:
			return "", usagef("there is no %s and no %s in %q", specFile, dockerFile, dir).withHint("-f FILE names the spec or the Dockerfile")
		case len(found) > 1 && filepath.Base(found[0]) == specFile:
			return "", usagef("%q holds both %s and %s", dir, specFile, filepath.Base(found[1])).withHint("choose one with -f")
		}
		file = found[0]
	}
	what := "the Dockerfile"
	if isSpec(file) {
		what = "the spec"
	}
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if below := filepath.Join(dir, file); !filepath.IsAbs(file) && isFile(below) {
			return "", usagef("%s: %w", what, err).withHint("-f %s: the name is one of the current directory, not of the context", below)
		}
		return "", usagef("%s: %w", what, err).withHint("-f FILE is a file below the current directory, not below the context")
	case err != nil:
		return "", usagef("%s: %w", what, err)
	case !info.Mode().IsRegular():
		return "", usagef("%s: %q is not a regular file", what, file)
	}
	return file, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// chooseInput decides what req is built from. The returned function removes what was read from elsewhere; it is never nil.
func (b *buildFlags) chooseInput(ctx context.Context, e *env, req *build.Request, context string) (done func() error, err error) {
	done = func() error { return nil }
	switch {
	case b.dockerfile.llb != "":
		return b.llbInput(e, req, context)
	case isRemoteFile(b.file):
		done, err := b.remoteDockerfile(ctx, e, req, context)
		if err != nil {
			return func() error { return nil }, errors.Join(err, done())
		}
		return done, nil
	case context == "-":
		return b.stdinContext(e, req)
	case build.IsRemoteContext(context):
		return b.remoteContext(e, req, context)
	case b.file == "-":
		if err := mustBeDir(context); err != nil {
			return done, usagef("the context: %w", err)
		}
		in, err := readStdin(e.stdin)
		if err != nil {
			return done, err
		}
		req.File, req.ContextDir, req.Dockerfile = in.path, context, &build.Dockerfile{Stdin: true}
		return in.close, nil
	}
	if req.File, err = inputFile(b.file, context); err != nil {
		return done, err
	}
	req.ContextDir = context
	if isSpec(req.File) {
		return done, b.dockerfile.refuse(req.File)
	}
	req.Dockerfile = &build.Dockerfile{}
	return done, nil
}

// stdinContext takes standard input as an archive that is the context, or as a Dockerfile without context.
func (b *buildFlags) stdinContext(e *env, req *build.Request) (done func() error, err error) {
	done = func() error { return nil }
	if b.file == "-" {
		return done, usagef("the context and the Dockerfile cannot both be standard input")
	}
	in, err := readStdin(e.stdin)
	if err != nil {
		return done, err
	}
	req.Dockerfile = &build.Dockerfile{Stdin: true}
	switch {
	case in.archive:
		req.Dockerfile.Archive, req.File = in.path, b.file
	case b.file != "":
		return done, errors.Join(usagef("standard input is a Dockerfile, and so is -f %s", b.file), in.close())
	default:
		req.File = in.path
	}
	return in.close, nil
}

// remoteContext takes a URL as the context; -f is a path in it, or on this machine when it is absolute or "-".
func (b *buildFlags) remoteContext(e *env, req *build.Request, context string) (done func() error, err error) {
	done = func() error { return nil }
	req.ContextDir, req.File, req.Dockerfile = context, b.file, &build.Dockerfile{}
	switch {
	case b.file == "-":
		in, err := readStdin(e.stdin)
		if err != nil {
			return done, err
		}
		req.File, req.Dockerfile.Local, req.Dockerfile.Stdin = in.path, true, true
		return in.close, nil
	case filepath.IsAbs(b.file):
		req.Dockerfile.Local = true
	}
	return done, nil
}

// llbInput takes a definition.
func (b *buildFlags) llbInput(e *env, req *build.Request, context string) (done func() error, err error) {
	done = func() error { return nil }
	if b.file != "" {
		return done, usagef("--llb and -f exclude each other")
	}
	if err := mustBeDir(context); err != nil {
		return done, usagef("the context: %w", err)
	}
	req.ContextDir, req.Dockerfile = context, &build.Dockerfile{}
	if b.dockerfile.llb == "-" {
		req.LLB = e.stdin
		return done, nil
	}
	f, err := os.Open(b.dockerfile.llb)
	if err != nil {
		return done, usagef("--llb: %w", err)
	}
	req.LLB = f
	return f.Close, nil
}

func mustBeDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%q is not a directory", dir)
	}
	return nil
}

// parseSecrets reads --secret id=NAME[,src=FILE|,env=VARIABLE]. Without a source it is the variable of that name,
// else the file, as in buildx.
func parseSecrets(e *env, values []string) (map[string]build.SecretSource, error) {
	if len(values) == 0 {
		return nil, nil
	}
	out := make(map[string]build.SecretSource, len(values))
	for _, v := range values {
		id, src, err := parseSecret(e, v)
		if err != nil {
			return nil, err
		}
		if _, twice := out[id]; twice {
			return nil, usagef("--secret: id %q is given twice", id)
		}
		out[id] = src
	}
	return out, nil
}

func parseSecret(e *env, v string) (id string, src build.SecretSource, err error) {
	const want = "want id=NAME[,src=FILE|,env=VARIABLE]"
	var kind string
	for field := range strings.SplitSeq(v, ",") {
		key, value, found := strings.Cut(field, "=")
		if !found {
			return "", src, usagef("--secret %q: %s", v, want)
		}
		switch strings.ToLower(key) {
		case "id":
			id = value
		case "src", "source":
			src.File = value
		case "env":
			src.Env = value
		case "type":
			kind = value
		default:
			return "", src, usagef("--secret %q: unknown key %q", v, key).withHint("%s", want)
		}
	}
	switch kind {
	case "", "file":
	case "env":
		if src.Env == "" { // buildx: with type=env, src names the variable
			src.Env, src.File = src.File, ""
		}
	default:
		return "", src, usagef("--secret %q: unknown type %q", v, kind).withHint("want file or env")
	}
	switch {
	case id == "":
		return "", src, usagef("--secret %q has no id", v).withHint("%s", want)
	case src.File != "" && src.Env != "":
		return "", src, usagef("--secret %q has both a file and a variable", v)
	case src.File == "" && src.Env == "":
		if _, ok := e.lookup(id); ok && kind != "file" || kind == "env" {
			src.Env = id
		} else {
			src.File = id
		}
	}
	if src.Env != "" {
		if _, ok := e.lookup(src.Env); !ok {
			return "", src, usagef("--secret %q: variable %s is not set", v, src.Env)
		}
		return id, src, nil
	}
	if _, err := os.Stat(src.File); err != nil {
		return "", src, usagef("--secret %q: %w", v, err)
	}
	return id, src, nil
}
