package main

import (
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
)

// inputFlags are the flags that decide what a spec means.
type inputFlags struct {
	platforms []string
	args      []string
	contexts  []string
}

func (in *inputFlags) add(f *pflag.FlagSet) {
	f.StringSliceVar(&in.platforms, "platform", nil, "`OS/ARCH[/VARIANT],...` platforms, instead of the spec's; local is this machine")
	f.StringArrayVar(&in.args, "build-arg", nil, "`NAME[=VALUE]` set an argument of the spec, without a value to the environment's; may be repeated")
	f.StringArrayVar(&in.contexts, "build-context", nil, "`NAME=DIR` another directory that sources can come from; may be repeated")
}

// request fills in what the flags and the environment say.
func (in *inputFlags) request(e *env, req *build.Request) (err error) {
	if req.Platforms, err = parsePlatforms(in.platforms); err != nil {
		return err
	}
	if req.Args, err = keyValues("build-arg", in.args, e.lookup); err != nil {
		return err
	}
	if req.Contexts, err = keyValues("build-context", in.contexts, nil); err != nil {
		return err
	}
	for name, dir := range req.Contexts {
		if err := mustBeDir(dir); err != nil {
			return usagef("--build-context %s: %w", name, err)
		}
	}
	req.Epoch, err = epoch(e, req.Args)
	return err
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
		for _, name := range []string{specFile, dockerFile} {
			path := filepath.Join(dir, name)
			if _, err := os.Lstat(path); err == nil {
				found = append(found, path)
			} else if !errors.Is(err, fs.ErrNotExist) {
				return "", usagef("%w", err)
			}
		}
		switch len(found) {
		case 0:
			return "", usagef("there is no %s in %q", specFile, dir).withHint("-f FILE names the spec")
		case 2:
			return "", usagef("%q holds both %s and %s", dir, specFile, dockerFile).withHint("choose one with -f")
		}
		file = found[0]
	}
	if ext := filepath.Ext(file); ext != ".yaml" && ext != ".yml" {
		return "", usagef("%q is a Dockerfile, and Dockerfiles are not supported yet", file).
			withHint("a spec's name ends in .yaml or .yml")
	}
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return "", usagef("the spec: %w", err)
	case !info.Mode().IsRegular():
		return "", usagef("the spec: %q is not a regular file", file)
	}
	return file, nil
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
