// Package emulate answers whether this host can run programs of a platform, and
// how: natively, by a qemu-user binary in our own binfmt_misc instance, or by the
// host's registered handler.
//
// It looks at the host (CPU, $PATH, binfmt_misc) and changes nothing there: package
// sandbox registers the handlers, in a binfmt_misc instance of its own user namespace.
//
// # Invariants
//
//   - What [For] says of a platform is what [List] says of it.
//   - An emulator is only named when it can work without files of the rootfs: statically linked, executable.
//   - The host's handlers count only when no emulator was found: an instance of our own hides all of them.
package emulate

import (
	"context"
	"errors"
	"fmt"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// ErrNoEmulator is the kind of "this host cannot run that platform"; its text says what to install.
var ErrNoEmulator = errors.New("no emulator")

// How says by what means a platform runs.
type How string

// The rungs of the emulation ladder.
const (
	Native  How = "native"
	Private How = "private" // our own binfmt_misc instance
	Ptrace  How = "ptrace"  // execve is rewritten by a tracer
	Host    How = "host"    // a handler registered on the host with the F flag
	None    How = "none"
)

// Mode is which rungs may be used.
type Mode string

// The modes.
const (
	Auto        Mode = "" // the first that works: private, ptrace, host
	PrivateOnly Mode = "private"
	PtraceOnly  Mode = "ptrace"
	HostOnly    Mode = "host"
	Off         Mode = "none"
)

// ParseMode reads a mode; "auto" is [Auto].
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case Auto, PrivateOnly, PtraceOnly, HostOnly, Off:
		return m, nil
	case "auto":
		return Auto, nil
	}
	return "", fmt.Errorf("%w: emulation %q: there are auto, private, ptrace, host and none", ErrMode, s)
}

// ErrMode reports an unknown mode.
var ErrMode = errors.New("unknown mode")

// Support is what this host can do for one platform.
type Support struct {
	Platform platform.Platform
	How      How
	Path     string // of the emulator
	Version  string // "7.2.22"; "" when unknown
	Reason   string // None: why, and what to install
	Warning  string // what is known against this version of the emulator; "" is nothing
}

// Options tunes discovery. The zero value is the recommended one.
type Options struct {
	Emulators map[string]string // architecture → path, from --emulator ARCH=PATH
	Path      string            // where to look; "" means $PATH as given by the caller's environment
	Mode      Mode
	Dir       string   // where [Install] put emulators, looked into before Path; "" means nowhere
	Versions  Versions // nil: emulators are asked each time
}

// Versions remembers the versions of emulators: to ask one takes as long as to start a program under it. A file is a text that is
// another one when the file is.
type Versions interface {
	Version(file string) (version string, ok bool)
	Keep(file, version string)
}

// List reports on every platform of the table, native first.
func List(ctx context.Context, o Options) []Support {
	s := newSearch(ctx, o)
	var native, rest []Support
	for _, p := range platforms() {
		r := s.support(p)
		if r.How == Native {
			native = append(native, r)
		} else {
			rest = append(rest, r)
		}
	}
	return append(native, rest...)
}

// For reports on one platform; the error is an ErrNoEmulator with the next step when it cannot run.
func For(ctx context.Context, p platform.Platform, o Options) (Support, error) {
	r := newSearch(ctx, o).support(p)
	if r.How == None {
		return r, fmt.Errorf("%w for %s: %s", ErrNoEmulator, p, r.Reason)
	}
	return r, nil
}

// Handlers returns the handlers of all foreign platforms for which an emulator was found.
func Handlers(ctx context.Context, o Options) []Handler {
	s := newSearch(ctx, o)
	var hs []Handler
	for _, m := range machines {
		if m.arch == s.machine.Arch || s.runsNatively(m.arch) {
			continue
		}
		e := s.emulator(m)
		if e.path == "" {
			continue
		}
		magic, mask := m.pattern()
		hs = append(hs, Handler{Arch: m.arch, Name: "manifestctl-" + m.arch, Magic: magic, Mask: mask, Path: e.path, Flags: "FPOC"})
	}
	return hs
}
