package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"unicode"

	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/builder"
	"github.com/manifestctl/manifestctl/pkg/credentials"
	"github.com/manifestctl/manifestctl/pkg/draft"
	"github.com/manifestctl/manifestctl/pkg/edit"
	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/inspect"
	"github.com/manifestctl/manifestctl/pkg/output"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/replica"
	"github.com/manifestctl/manifestctl/pkg/runtimes"
	"github.com/manifestctl/manifestctl/pkg/serve"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/stage"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/tags"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// The exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitStep        = 3
	exitFindings    = 4
	exitConflict    = 5
	exitNotFound    = 6
	exitDenied      = 7
	exitHost        = 8
	exitInterrupted = 130
	exitTerminated  = 143
)

// exitTable is the table that --help prints.
var exitTable = []struct {
	code int
	text string
}{
	{exitOK, "ok"},
	{exitFailed, "failed; exists: no"},
	{exitUsage, "usage, bad spec or Dockerfile, bad reference"},
	{exitStep, "a step failed"},
	{exitFindings, "findings: something checked is not as it should be"},
	{exitConflict, "conflict: what was to be changed had changed"},
	{exitNotFound, "not found"},
	{exitDenied, "denied: credentials, policy"},
	{exitHost, "this host cannot: no user namespace, no emulator, no space"},
	{exitInterrupted, "interrupted"},
	{exitTerminated, "terminated"},
}

// errFindings is the kind of "checked, and not as it should be".
var errFindings = errors.New("findings")

// errTimeout is the end of --timeout.
var errTimeout = errors.New("out of time")

// errQuiet ends a command that has answered no: exit code 1 says it all.
var errQuiet = errors.New("no")

// errorKinds maps kinds of errors to exit codes. The first row that matches counts: what the host cannot do
// says more than the step that needed it.
var errorKinds = []struct {
	kind error
	code int
	hint string
}{
	{build.ErrHost, exitHost, "`manifestctl doctor` shows what this host allows, and what to do"},
	{build.ErrNoNode, exitHost, "`manifestctl builder create --append` adds a node; --fallback builds the platform on this machine"},
	{build.ErrNodeCannot, exitUsage, ""},
	{build.ErrNodeCertificate, exitDenied, "`manifestctl builder create --help` says which files --driver-opt takes"},
	{build.ErrNodeStopped, exitFailed, "`manifestctl builder inspect --bootstrap NAME` starts the containers of the builder NAME"},
	{build.ErrNodeBuildctl, exitFailed, "what is run there is `buildctl dial-stdio`: put BuildKit's buildctl into its $PATH"},
	{build.ErrNodeUnreachable, exitFailed, "`manifestctl builder ls` shows which nodes answer; --builder local builds on this machine"},
	{build.ErrNodeLost, exitFailed, "`manifestctl builder ls` shows which nodes answer; --fallback goes on on this machine"},
	{builder.ErrInvalid, exitUsage, ""},
	{builder.ErrNotFound, exitNotFound, "`manifestctl builder ls` lists them"},
	{builder.ErrExists, exitConflict, ""},
	{emulate.ErrNoEmulator, exitHost, "`manifestctl emulate ls` shows what this host can run"},
	{store.ErrNoSpace, exitHost, "`manifestctl store gc` frees what nothing refers to; --root DIR puts the store elsewhere"},
	{syscall.ENOSPC, exitHost, "free some space there, or write elsewhere"},
	{errUsage, exitUsage, ""},
	{build.ErrSpec, exitUsage, ""},
	{build.ErrNotAllowed, exitUsage, ""},
	{build.ErrLock, exitUsage, "`manifestctl lock` writes it anew when it is removed"},
	{build.ErrNotLocked, exitUsage, "`manifestctl lock` adds it"},
	{build.ErrChanged, exitConflict, "`manifestctl lock` locks what it is now"},
	{build.ErrLLB, exitUsage, ""},
	{build.ErrUnsupported, exitUsage, ""},
	{build.ErrInput, exitUsage, ""},
	{build.ErrAccelerate, exitUsage, "apt-get download dash coreutils libc6 ... gets packages of this machine's release"},
	{build.ErrNoCommand, exitUsage, "name one after the image"},
	{build.ErrSSH, exitUsage, "keys with a passphrase belong into an agent: ssh-add"},
	{platform.ErrInvalid, exitUsage, "`manifestctl emulate ls` lists the platforms"},
	{ref.ErrInvalid, exitUsage, ""},
	{output.ErrInvalid, exitUsage, ""},
	{draft.ErrInvalid, exitUsage, ""},
	{edit.ErrInvalid, exitUsage, ""},
	{transfer.ErrInvalid, exitUsage, ""},
	{stage.ErrInvalid, exitUsage, ""},
	{runtimes.ErrInvalid, exitUsage, ""},
	{runtimes.ErrPlatform, exitUsage, ""},
	{runtimes.ErrNone, exitHost, "--load=RUNTIME names one; without a runtime the result is in the store, or goes to a file with -o type=oci,dest=FILE"},
	{replica.ErrInvalid, exitUsage, "docs/sync.md describes the two formats"},
	{errFindings, exitFindings, ""},
	{build.ErrFindings, exitFindings, "--allow PATH-GLOB=PLATFORM makes an exception; --verify=warn only tells"},
	{transfer.ErrConflict, exitConflict, ""},
	{store.ErrConflict, exitConflict, ""},
	{build.ErrDrops, exitConflict, ""},
	{build.ErrOtherCache, exitConflict, ""},
	{tags.ErrInUse, exitConflict, "--force deletes it all the same"},
	{draft.ErrExists, exitConflict, "--amend adds to it, --replace makes it anew"},
	{index.ErrDuplicate, exitFailed, "--replace-platform lets the new one take the place of the old one"},
	{draft.ErrNotIndex, exitFailed, ""},
	{registry.ErrDenied, exitDenied, "`manifestctl login` keeps credentials; those of docker and podman are read as well"},
	{stage.ErrMissing, exitNotFound, "`manifestctl stage ls REPO` shows what is there; --wait DURATION waits for the rest"}, // unless it is denied
	{credentials.ErrNotFound, exitNotFound, ""},
	{registry.ErrOffline, exitFailed, "take --offline away, or bring what is missing here first: `manifestctl copy`, `manifestctl load`"},
	{source.ErrAmbiguous, exitUsage, ""},
	{registry.ErrNoRepository, exitNotFound, "is the name of the repository right? It appears with the first push to it"},
	{registry.ErrNotFound, exitNotFound, "`manifestctl tags HOST/REPO` lists the tags that a repository has"},
	{source.ErrNotFound, exitNotFound, ""},
	{store.ErrNotFound, exitNotFound, ""},
	{inspect.ErrFormat, exitUsage, ""},
	{serve.ErrInvalid, exitUsage, ""},
	{serve.ErrOpen, exitUsage, ""},
	{serve.ErrInUse, exitFailed, ""},
	{build.ErrStep, exitStep, ""},
	{build.ErrDockerfile, exitUsage, ""}, // after what it asked for in vain: an image that is not there
	{index.ErrInvalid, exitFailed, ""},
}

// errUsage is the kind of every mistake on the command line.
var errUsage = errors.New("usage")

// usageError is a mistake on the command line.
type usageError struct {
	text string
	hint string
	err  error // what parsed the value said, if it was not us
}

// usagef makes a usageError; %w keeps the cause.
func usagef(format string, a ...any) *usageError {
	err := fmt.Errorf(format, a...)
	return &usageError{text: err.Error(), err: errors.Unwrap(err)}
}

func (e *usageError) withHint(format string, a ...any) *usageError {
	e.hint = fmt.Sprintf(format, a...)
	return e
}

func (e *usageError) Error() string        { return e.text }
func (e *usageError) Unwrap() error        { return e.err }
func (e *usageError) Is(target error) bool { return target == errUsage }
func (e *usageError) Hint() string         { return e.hint }

// exitCode is err's exit code.
func exitCode(err error) int {
	for _, row := range errorKinds {
		if errors.Is(err, row.kind) {
			return row.code
		}
	}
	return exitFailed
}

// hintFor is the next step for whoever reads err: the error's own, else its kind's.
func hintFor(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) && h.Hint() != "" {
		return h.Hint()
	}
	for _, row := range errorKinds {
		if errors.Is(err, row.kind) {
			return row.hint
		}
	}
	return ""
}

// fail prints err and its hint to stderr and returns the exit code.
func (e *env) fail(ctx context.Context, err error) int {
	var program programError
	if errors.As(err, &program) { // first: a signal was its to act on
		if program.say != "" {
			e.note("manifestctl: %s", program.say)
		}
		return program.code
	}
	if s, ok := signalled(ctx); ok {
		e.note("manifestctl: %s", s.text)
		return s.code
	}
	if err == errQuiet { //nolint:errorlint // joined with another it is no answer
		return exitFailed
	}
	e.excerpt(err)
	e.note("manifestctl: %s", err)
	if hint := hintFor(err); hint != "" {
		e.note("hint: %s", hint)
	}
	return exitCode(err)
}

// excerpt shows the lines of a file that err is about.
func (e *env) excerpt(err error) {
	var at interface{ Lines() *graph.Excerpt }
	if !errors.As(err, &at) {
		return
	}
	if text := strings.TrimSuffix(at.Lines().String(), "\n"); text != "" {
		e.note("%s", text)
	}
}

// exitHelp is exitTable as help prints it.
func exitHelp() string {
	var b strings.Builder
	b.WriteString("Exit codes:\n")
	for _, row := range exitTable {
		fmt.Fprintf(&b, "  %3d  %s\n", row.code, row.text)
	}
	return b.String()
}

// escape makes control characters of text that came from elsewhere visible, so that they cannot steer a terminal.
func escape(s string) string {
	if !strings.ContainsFunc(s, steers) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if steers(r) {
			fmt.Fprintf(&b, "\\u%04x", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// steers reports whether r is a control character other than newline and tab, or changes the direction of text.
func steers(r rune) bool {
	return r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r))
}
