package source

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ErrGit is the kind of every error about a git repository.
var ErrGit = errors.New("git")

// GitRequest is one commit of a repository.
type GitRequest struct {
	Remote      string // URL or scp form
	Ref         string // branch, tag or commit; "" is the remote's HEAD
	Checksum    string // hex, may be a prefix: the commit or tag object that Ref must be
	ByCommit    bool   // fetch Checksum instead of Ref
	KeepGitDir  bool
	NoSubmodule bool
	// Authorization is the header that is sent for https; "" is none.
	Authorization string
	// SSHSocket is that of an ssh agent; KnownHosts is the content of known_hosts, "" checks nothing.
	SSHSocket, KnownHosts string
}

// Git runs the git binary in a directory of its own, with nothing of the caller's configuration.
type Git struct {
	dir string // scratch: repository, work tree, home
	req GitRequest
}

// BasicToken is the Authorization header that a token makes, as BuildKit sends it.
func BasicToken(token string) string {
	return "basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+token))
}

// NewGit works in dir, an existing empty directory.
func NewGit(dir string, req GitRequest) (*Git, error) {
	g := &Git{dir: dir, req: req}
	for what, s := range map[string]string{"repository": req.Remote, "ref": req.Ref, "checksum": req.Checksum} {
		if strings.HasPrefix(s, "-") || strings.ContainsAny(s, "\x00\n\r") {
			return nil, fmt.Errorf("%w: %s %q would be taken for an option", ErrGit, what, s)
		}
	}
	if scheme, rest, ok := strings.Cut(req.Remote, "::"); ok && !strings.ContainsAny(scheme, "/:@") {
		return nil, fmt.Errorf("%w: repository %q: helpers (%s::%s) are not run", ErrGit, req.Remote, scheme, rest)
	}
	if _, err := exec.LookPath("git"); err != nil {
		return nil, fmt.Errorf("%w: no git program in PATH: install git", ErrGit)
	}
	for _, d := range []string{"home", "tree"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// Tree is the directory that Checkout fills.
func (g *Git) Tree() string { return filepath.Join(g.dir, "tree") }

// run runs git in the work tree.
func (g *Git) run(ctx context.Context, args ...string) ([]byte, error) {
	config := [][2]string{
		{"protocol.allow", "never"},
		{"protocol.https.allow", "always"},
		{"protocol.http.allow", "always"},
		{"protocol.git.allow", "always"},
		{"protocol.ssh.allow", "always"},
		{"core.hooksPath", os.DevNull},
		{"core.fsmonitor", "false"},
		{"core.autocrlf", "false"},
		{"core.symlinks", "true"},
		{"init.defaultBranch", "main"},
		{"advice.detachedHead", "false"},
		{"gc.auto", "0"},
		{"submodule.recurse", "false"},
		{"credential.helper", ""},
		{"core.askPass", ""},
	}
	if g.req.Authorization != "" {
		config = append(config, [2]string{"http." + g.origin() + ".extraHeader", "Authorization: " + g.req.Authorization})
	}
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = g.Tree()
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), //nolint:forbidigo // git finds its parts by it
		"HOME=" + filepath.Join(g.dir, "home"), "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=", "SSH_ASKPASS=", "GIT_OPTIONAL_LOCKS=0",
		"GIT_CONFIG_COUNT=" + strconv.Itoa(len(config)), "GIT_SSH_COMMAND=" + g.ssh(),
	}
	// In variables, so that a token is in no list of processes.
	for i, kv := range config {
		cmd.Env = append(cmd.Env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, kv[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, kv[1]))
	}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if v := os.Getenv(name); v != "" { //nolint:forbidigo // as package net/http reads them
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	if g.req.SSHSocket != "" {
		cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK="+g.req.SSHSocket)
	}
	cmd.WaitDelay = 5 * time.Second
	restrictGit(cmd)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		text := strings.TrimSpace(stderr.String())
		if len(text) > 4096 {
			text = text[len(text)-4096:]
		}
		return nil, fmt.Errorf("%w %s: %w: %s", ErrGit, args[0], err, text)
	}
	return stdout.Bytes(), nil
}

// origin is scheme and host of the remote: a token goes nowhere else, not even to submodules.
func (g *Git) origin() string {
	scheme, rest, ok := strings.Cut(g.req.Remote, "://")
	if !ok {
		return "https://invalid."
	}
	host, _, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		host = host[i+1:]
	}
	return scheme + "://" + host + "/"
}

func (g *Git) ssh() string {
	known, check := os.DevNull, "no"
	if g.req.KnownHosts != "" {
		check = "yes"
		known = filepath.Join(g.dir, "known_hosts")
	}
	return "ssh -F " + os.DevNull + " -o BatchMode=yes -o StrictHostKeyChecking=" + check + " -o UserKnownHostsFile='" + strings.ReplaceAll(known, "'", `'\''`) + "'"
}

var commitID = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(?:[0-9a-f]{40}|[0-9a-f]{64})$`) })

// Resolve asks the remote which commit is meant.
func (g *Git) Resolve(ctx context.Context) (commit string, err error) {
	if g.req.KnownHosts != "" {
		if err := os.WriteFile(filepath.Join(g.dir, "known_hosts"), []byte(g.req.KnownHosts), 0o600); err != nil {
			return "", err
		}
	}
	ref := g.req.Ref
	if g.req.ByCommit {
		ref = g.req.Checksum
	}
	if commitID().MatchString(ref) {
		return ref, g.verify(ref, "")
	}
	if ref == "" {
		ref = "HEAD"
	}
	out, err := g.run(ctx, "ls-remote", "--", g.req.Remote, ref, ref+"^{}")
	if err != nil {
		return "", err
	}
	object, commit := pickRef(string(out), ref)
	if commit == "" {
		return "", fmt.Errorf("%w: repository does not have %q: %w", ErrGit, ref, ErrNotFound)
	}
	return commit, g.verify(commit, object)
}

// pickRef chooses from what ls-remote lists: the full name, then a branch, then a tag; commit is what an annotated tag
// means, object the tag itself.
func pickRef(list, ref string) (object, commit string) {
	ids := map[string]string{}
	for line := range strings.Lines(list) {
		if id, name, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok {
			ids[name] = id
		}
	}
	for _, prefix := range []string{"", "refs/heads/", "refs/tags/", "refs/"} {
		name := prefix + ref
		id, ok := ids[name]
		if !ok {
			continue
		}
		if peeled, ok := ids[name+"^{}"]; ok {
			return id, peeled
		}
		return id, id
	}
	return "", ""
}

func (g *Git) verify(commit, object string) error {
	want := strings.ToLower(g.req.Checksum)
	if want == "" || strings.HasPrefix(commit, want) || strings.HasPrefix(object, want) {
		return nil
	}
	return fmt.Errorf("%w: %q is commit %s, not %s as its checksum says", ErrGit, g.req.Ref, commit, want)
}

// Checkout fetches a commit without its history and checks it out in Tree.
func (g *Git) Checkout(ctx context.Context, commit string) (when time.Time, err error) {
	steps := [][]string{{"init", "-q"}, {"remote", "add", "origin", g.req.Remote}}
	for _, s := range steps {
		if _, err := g.run(ctx, s...); err != nil {
			return when, err
		}
	}
	if err := g.fetch(ctx, commit); err != nil {
		return when, err
	}
	if _, err := g.run(ctx, "checkout", "-q", "--detach", "FETCH_HEAD"); err != nil {
		return when, err
	}
	head, err := g.run(ctx, "rev-parse", "HEAD")
	if err != nil {
		return when, err
	}
	if got := strings.TrimSpace(string(head)); got != commit {
		return when, fmt.Errorf("%w: fetched commit %s instead of %s: the ref moved", ErrGit, got, commit)
	}
	if !g.req.NoSubmodule {
		if _, err := g.run(ctx, "submodule", "update", "--init", "--recursive", "--depth=1"); err != nil {
			return when, err
		}
	}
	out, err := g.run(ctx, "log", "-1", "--format=%ct")
	if err != nil {
		return when, err
	}
	sec, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return when, fmt.Errorf("%w: time of %s: %w", ErrGit, commit, err)
	}
	return time.Unix(sec, 0), nil
}

// Object is the commit that was checked out as git keeps it: its headers, an empty line, its message. At most 1 MiB.
func (g *Git) Object(ctx context.Context, commit string) ([]byte, error) {
	const most = 1 << 20
	out, err := g.run(ctx, "cat-file", "commit", commit)
	if err == nil && len(out) > most {
		err = fmt.Errorf("%w: commit %s is longer than %d bytes", ErrGit, commit, most)
	}
	return out, err
}

// fetch gets the commit by its id, or by the ref where the server gives no others.
func (g *Git) fetch(ctx context.Context, commit string) error {
	_, err := g.run(ctx, "fetch", "-q", "--no-tags", "--depth=1", "--", "origin", commit)
	if err == nil || g.req.Ref == "" || commitID().MatchString(g.req.Ref) {
		if err == nil {
			return nil
		}
		// Some servers give only what refs point at, or no shallow history.
		if _, err2 := g.run(ctx, "fetch", "-q", "--tags", "--", "origin", "+refs/heads/*:refs/remotes/origin/*"); err2 != nil {
			return err
		}
		_, err2 := g.run(ctx, "update-ref", "FETCH_HEAD", commit)
		return err2
	}
	_, err = g.run(ctx, "fetch", "-q", "--no-tags", "--depth=1", "--", "origin", g.req.Ref)
	return err
}
