package credentials

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Threat: a helper is a program on the user's PATH that the user's own file names. Its name must be a name: no path, no
// argument. What it prints may hold a secret, so it is shown only where the protocol says that it is a message.

// program is the name of a helper's program.
func program(helper string) string { return "docker-credential-" + helper }

var helperName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`) })

// maxAnswer is the most that is read of a helper, in bytes.
const maxAnswer = 1 << 20

// remembered is how long a helper's answer is good for: some take a second, and are asked for every repository.
const remembered = 5 * time.Minute

// answer is what a helper said.
type answer struct {
	asking sync.Mutex
	known  bool
	cfg    authn.AuthConfig
}

// helperAnswer is the document of the helper protocol (docker-credential-helpers).
type helperAnswer struct {
	ServerURL string
	Username  string
	Secret    string
}

// identityUser marks a Secret that is an identity token.
const identityUser = "<token>"

// ask gets what a helper keeps for a server; zero: nothing.
func (k *Keychain) ask(ctx context.Context, helper, server string) (authn.AuthConfig, error) {
	key := helper + "\n" + server
	k.answers.Lock()
	a := k.asked[key]
	if a == nil {
		a = &answer{}
		k.asked[key] = a
	}
	k.answers.Unlock()
	a.asking.Lock()
	defer a.asking.Unlock()
	if a.known {
		return a.cfg, nil
	}
	cfg, err := k.get(ctx, helper, server)
	if err == nil {
		a.known, a.cfg = true, cfg
		time.AfterFunc(remembered, func() { k.forget(key) })
	}
	return cfg, err
}

func (k *Keychain) forget(key string) {
	k.answers.Lock()
	defer k.answers.Unlock()
	delete(k.asked, key)
}

func (k *Keychain) get(ctx context.Context, helper, server string) (authn.AuthConfig, error) {
	out, err := k.run(ctx, helper, "get", server)
	if errors.Is(err, errNothingKept) {
		return authn.AuthConfig{}, nil
	}
	if err != nil {
		return authn.AuthConfig{}, err
	}
	var doc helperAnswer
	if json.Unmarshal(out, &doc) != nil {
		return authn.AuthConfig{}, fmt.Errorf("%w %s: its answer is not the JSON document of the protocol", ErrHelper, program(helper))
	}
	if doc.ServerURL != "" && normalise(doc.ServerURL) != normalise(server) {
		return authn.AuthConfig{}, fmt.Errorf("%w %s: asked for %s, it answered for %q", ErrHelper, program(helper), server, clip(doc.ServerURL))
	}
	if doc.Username == identityUser {
		return authn.AuthConfig{IdentityToken: doc.Secret}, nil
	}
	return authn.AuthConfig{Username: doc.Username, Password: doc.Secret}, nil
}

// errNothingKept is a helper's way to say that it has no credentials for a server.
var errNothingKept = errors.New("nothing kept")

// run calls a helper with one of the protocol's verbs and returns what it printed.
func (k *Keychain) run(ctx context.Context, helper, verb, input string) ([]byte, error) {
	name := program(helper)
	if !helperName().MatchString(helper) {
		return nil, fmt.Errorf("%w: %q is not the name of one", ErrHelper, clip(helper))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, k.o.HelperTimeout, fmt.Errorf("it did not answer within %s", k.o.HelperTimeout))
	defer cancel()
	out := &limited{max: maxAnswer}
	cmd := exec.CommandContext(ctx, name, verb) //nolint:gosec // the user's own file names it; see above
	cmd.Stdin, cmd.Stdout = strings.NewReader(input), out
	cmd.WaitDelay = 3 * time.Second // its own children may hold the pipe open
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w %s: %w", ErrHelper, name, context.Cause(ctx))
	case errors.Is(err, exec.ErrNotFound):
		return nil, fmt.Errorf("%w %s: it is not on PATH: install it, or take its name out of the file that names it", ErrHelper, name)
	case out.over:
		return nil, fmt.Errorf("%w %s: it printed more than %d bytes", ErrHelper, name, maxAnswer)
	}
	if err == nil {
		return out.buf.Bytes(), nil
	}
	said := strings.TrimSpace(out.buf.String())
	switch said {
	case "credentials not found in native keychain", "no credentials server URL", "no credentials username":
		return nil, errNothingKept
	}
	if said == "" || strings.ContainsAny(said, "{}\"") { // no message: it may hold anything
		return nil, fmt.Errorf("%w %s: %w", ErrHelper, name, err)
	}
	return nil, fmt.Errorf("%w %s: %s (%w)", ErrHelper, name, clip(said), err)
}

// limited keeps the first max bytes.
type limited struct {
	buf  bytes.Buffer
	max  int
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	if room := l.max - l.buf.Len(); len(p) > room {
		l.over = true
		l.buf.Write(p[:room])
		return len(p), nil
	}
	return l.buf.Write(p)
}

// clip makes a text of a helper safe to show: one short line.
func clip(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 200 {
		s = string(r[:200]) + "..."
	}
	return s
}
