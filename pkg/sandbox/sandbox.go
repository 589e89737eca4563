// Package sandbox runs processes of a rootfs as an ordinary user: namespaces,
// mounts, ownership, emulation. It re-executes this program as an agent, pid 1 of
// its own user, mount and pid namespaces; programs that use it call [Main] first.
package sandbox

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// ErrHost is the kind of every "this host cannot": no user namespace, no overlay. Its text names the cause and the mend.
var ErrHost = errors.New("this host cannot run steps")

// ErrOwnership reports a chown that cannot be kept with a single uid.
var ErrOwnership = errors.New("owner cannot be kept")

var errTODO = errors.New("sandbox: not built yet")

// Main runs the agent and never returns when this process was started as one; else it does nothing. It
// must be the first thing main (and TestMain) does.
func Main() {}

// Mode is where ids of a rootfs come from.
type Mode string

// The modes.
const (
	ModeRoot   Mode = "root"   // own user namespace with root's ids mapped one to one
	ModeRanges Mode = "ranges" // /etc/subuid by newuidmap
	ModeSingle Mode = "single" // one uid; other owners in xattrs
)

// Options tunes a pool. The zero value is the recommended one.
type Options struct {
	Mode     Mode // "" probes: root, ranges, single
	Handlers []emulate.Handler
	Agents   int // most agents at once; 0 means NumCPU
}

// Pool is a set of warm agents, one for each concurrent step. It is safe for concurrent use.
type Pool struct{}

// NewPool probes the host and starts the first agent.
func NewPool(ctx context.Context, o Options) (*Pool, error) { return nil, errTODO }

// Close ends all agents and what runs in them.
func (p *Pool) Close() error { return nil }

// Mode is the mode in use.
func (p *Pool) Mode() Mode { return "" }

// Ownership is how trees made by Unpack and Run keep owners.
func (p *Pool) Ownership() layer.Ownership { return "" }

// SnapshotKey identifies mode and id map: trees made under one key cannot be used under another.
func (p *Pool) SnapshotKey() string { return "" }

// Unpack applies an uncompressed layer to dir (made by the caller, empty), as an overlay lower.
func (p *Pool) Unpack(ctx context.Context, dir string, tar *os.File, lim layer.Limits) error {
	return errTODO
}

// Remove deletes a tree that agents made, whatever its owners and modes.
func (p *Pool) Remove(ctx context.Context, dir string) error { return errTODO }

// Step is one process to run in a rootfs made of directories.
type Step struct {
	Lowers  []string // top first; none is an empty rootfs
	Scratch string   // existing empty directory of the caller for upper and work; on the snapshots' file system
	Args    []string
	Env     []string // complete
	Cwd     string   // made when missing
	Account layer.Account
	HostNet bool // false: own network namespace, loopback up
	Mounts  []Mount
	Limits  Rlimits
	Stdout  io.Writer // nil drops
	Stderr  io.Writer

	// Diff receives the layer's tar after the process ended with 0; nil: none wanted.
	Diff  io.Writer
	Clamp *time.Time
	Keep  string // when set, the upper directory is moved here as a new overlay lower after the diff
}

// Rlimits are left as inherited when zero.
type Rlimits struct {
	Files uint64
}

// MountKind is what a Mount puts at its target.
type MountKind string

// The kinds of mounts.
const (
	MountDir     MountKind = "dir"     // a host directory or file, bind-mounted
	MountOverlay MountKind = "overlay" // Lowers (and Sub in them), changes discarded
	MountTmpfs   MountKind = "tmpfs"
	MountData    MountKind = "data" // Data as a file: secrets, never on disk
)

// Mount is one mount of a step. Targets are inside the rootfs and are resolved there, never on the host.
type Mount struct {
	Kind     MountKind
	Target   string
	Source   string   // dir: host path
	Lowers   []string // overlay: top first
	Sub      string   // overlay: path inside
	ReadOnly bool
	Size     int64
	Mode     uint32
	UID, GID int
	Data     []byte
}

// ExitError reports a process that ended with a code other than 0 or by a signal.
type ExitError struct {
	Code   int // 128+n for signal n
	Signal string
}

func (e *ExitError) Error() string { return "exit" }

// Run runs one step. An *ExitError says how the process ended; any other error is ours or the host's.
func (p *Pool) Run(ctx context.Context, s Step) error { return errTODO }

// Rung is one line of the ladder that doctor prints.
type Rung struct {
	Name   string // "user namespace", "ownership: subuid ranges"
	OK     bool
	Detail string // what was found
	Err    string // errno and where
	Mend   string // what to do
}

// Probe tries every rung by doing it.
func Probe(ctx context.Context, o Options) []Rung { return nil }
