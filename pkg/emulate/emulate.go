// Package emulate answers whether this host can run programs of a platform, and
// how: natively, by a qemu-user binary in our own binfmt_misc instance, or by the
// host's registered handler.
package emulate

import (
	"context"
	"errors"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// ErrNoEmulator is the kind of "this host cannot run that platform"; its text says what to install.
var ErrNoEmulator = errors.New("no emulator")

var errTODO = errors.New("emulate: not built yet")

// How says by what means a platform runs.
type How string

// The rungs of the emulation ladder.
const (
	Native  How = "native"
	Private How = "private" // our own binfmt_misc instance
	Host    How = "host"    // a handler registered on the host with the F flag
	None    How = "none"
)

// Support is what this host can do for one platform.
type Support struct {
	Platform platform.Platform
	How      How
	Path     string // of the emulator
	Version  string // "7.2.22"; "" when unknown
	Reason   string // None: why, and what to install
}

// Options tunes discovery. The zero value is the recommended one.
type Options struct {
	Emulators map[string]string // architecture → path, from --emulator ARCH=PATH
	Path      string            // where to look; "" means $PATH as given by the caller's environment
}

// Machine is the platform this process runs on.
func Machine() platform.Platform { return platform.Platform{} }

// List reports on every platform of the table, native first.
func List(ctx context.Context, o Options) []Support { return nil }

// For reports on one platform; the error is an ErrNoEmulator with the next step when it cannot run.
func For(ctx context.Context, p platform.Platform, o Options) (Support, error) {
	return Support{}, errTODO
}

// Handler is one line for binfmt_misc's register file.
type Handler struct {
	Name  string
	Magic []byte
	Mask  []byte
	Path  string // absolute, in the mount namespace of the registration
	Flags string // "FPOC"
}

// Line is the handler as register wants it (escaped, at most 1920 bytes).
func (h Handler) Line() string { return "" }

// Handlers returns the handlers of all foreign platforms for which an emulator was found.
func Handlers(ctx context.Context, o Options) []Handler { return nil }
