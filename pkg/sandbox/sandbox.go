// Package sandbox runs processes of a rootfs as an ordinary user: namespaces,
// mounts, ownership, emulation. It re-executes this program as an agent, pid 1 of
// its own user, mount and pid namespaces; programs that use it call [Main] first.
//
// It knows nothing of images: a rootfs is a list of directories, a result is a
// layer's tar. Agents serve one request at a time and are warm: what a step pays
// for is its mounts, its process and its diff.
//
// # Invariants
//
//   - Nothing on the host changes but the directories that a caller names: mounts, handlers, names and
//     processes of a step live in namespaces that end with it.
//   - No path of a rootfs is ever resolved on the host: targets are walked component by component inside it.
//   - When Run returns, no process of the step is left; when this process dies, however it dies, so do they.
//   - A step never sees a descriptor, a path or the memory of this program or of its agent.
//   - What cannot be kept (an owner without a mapped id) is an error, never silently something else.
package sandbox

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// ErrHost is the kind of every "this host cannot": no user namespace, no overlay. Its text names the cause and the mend.
var ErrHost = errors.New("this host cannot run steps")

// ErrOwnership reports a chown that cannot be kept with a single uid.
var ErrOwnership = errors.New("owner cannot be kept")

// ErrRootfs reports a rootfs that no process can be started in: /proc is a symlink, a mount's target is below a file.
var ErrRootfs = errors.New("rootfs cannot be used")

// Mode is where ids of a rootfs come from.
type Mode string

// The modes.
const (
	ModeRoot   Mode = "root"   // own user namespace with root's ids mapped one to one
	ModeRanges Mode = "ranges" // /etc/subuid by newuidmap
	ModeSingle Mode = "single" // one uid; other owners in xattrs
	// ModeChroot has no namespaces: root of a container that refuses them. A rootfs is a whole tree that a step changes in
	// place (Step.Tree), and Unpack lays layers over each other.
	ModeChroot Mode = "chroot"
	// ModeInPlace is that where chroot is refused as well: a tree is moved into the root file system of this container while its step
	// runs, and what the container has there is moved aside. It is never chosen by probing, and refused outside of containers.
	ModeInPlace Mode = "inplace"
)

// ParseMode reads a mode; "auto" is "".
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case "", ModeRoot, ModeRanges, ModeSingle, ModeChroot, ModeInPlace:
		return m, nil
	case "auto":
		return "", nil
	}
	return "", fmt.Errorf("%w: executor %q: there are auto, root, ranges, single, chroot and inplace", errors.ErrUnsupported, s)
}

// whole says that a mode works on whole trees.
func (m Mode) whole() bool { return m == ModeChroot || m == ModeInPlace }

// Options tunes a pool. The zero value is the recommended one.
type Options struct {
	Mode     Mode // "" probes: root, ranges, single, chroot
	Handlers []emulate.Handler

	Emulation emulate.Mode // "" takes the first rung that works

	Agents int    // most agents at once; 0 means NumCPU
	Ahead  int    // agents that are started beside the first, for steps that will run at once
	Path   string // where newuidmap is looked for; "" means $PATH
	Dir    string // Probe tests the file system of this directory; "" means that of the temporary directory

	// What follows is for steps in place.
	OverwriteRoot bool        // even where nothing tells that this is a container
	Keep          []string    // directories that stay where they are: the store
	Away          sync.Locker // held while the container's own files are aside; nil: nobody else reads them
}

// Step is one process to run in a rootfs made of directories.
type Step struct {
	Lowers []string // top first; none is an empty rootfs
	// Tree is the rootfs where there are no namespaces ([Pool.Whole]), instead of Lowers: a directory that is the step's alone, on the
	// file system of Scratch. After the step it is what the step made of it; after an error it is of no use.
	Tree string
	// Content opens a file of Tree as its layers have it; without it, more counts as changed than need be.
	Content   func(name string) (io.ReadCloser, error)
	Scratch   string // existing empty directory of the caller for upper and work; on the snapshots' file system
	Args      []string
	Env       []string // complete
	Cwd       string   // made when missing
	Account   layer.Account
	HostNet   bool   // false: own network namespace, loopback up
	Hostname  string // "" is DefaultHostname
	Hosts     []Host // further lines of /etc/hosts
	Mounts    []Mount
	Limits    Rlimits
	Ulimits   []Ulimit
	Resources Resources
	ReadOnly  bool      // the rootfs cannot be written to
	Insecure  bool      // the step keeps all capabilities that its user namespace has
	OKCodes   []int     // exit codes that are no failure; none: 0 alone
	Stdin     io.Reader // nil is empty; a pipe, which is left when the step ends, however long its reader blocks
	Stdout    io.Writer // nil drops
	Stderr    io.Writer

	// Terminal makes a terminal in the step, which is its stdin, stdout and stderr and its controlling terminal: Stdin is typed
	// into it and Stdout gets what it shows; Stderr gets nothing. Its size is told by Sizes; nil: it has none.
	Terminal bool
	Sizes    <-chan Size
	// Signals are sent to the step's first process as they come; nil: none.
	Signals <-chan syscall.Signal

	// Diff receives the layer's tar after the process ended with 0; nil: none wanted.
	Diff  io.Writer
	Clamp *time.Time
	Keep  string // when set, the upper directory (or Tree) is moved here after the diff
	// KeepFailed does that for a process that failed, too: nothing was diffed then.
	KeepFailed bool
}

// Size is that of a terminal, in characters.
type Size struct {
	Cols, Rows uint16
}

// Resources bound what all processes of a step use together; 0 is unbounded. Where the host delegates a cgroup it is
// kept by that, else by watching the step: [Pool.Watched].
type Resources struct {
	Memory  int64         // bytes
	CPUs    int           // thousandths of a processor
	PIDs    int64         // processes and threads
	Disk    int64         // bytes that the step adds to its rootfs
	Timeout time.Duration // from the start of its process
}

// Host is a line of /etc/hosts.
type Host struct {
	IP   string
	Name string
}

// DefaultHostname is what BuildKit calls the machine a step runs on.
const DefaultHostname = "buildkitsandbox"

// Rlimits are left as inherited when zero.
type Rlimits struct {
	Files uint64
}

// Ulimit is one limit of a step, by the name that ulimits have in docker's words: "nofile", "nproc". -1 is unlimited.
type Ulimit struct {
	Name       string
	Soft, Hard int64
}

// MountKind is what a Mount puts at its target.
type MountKind string

// The kinds of mounts.
const (
	MountDir     MountKind = "dir"     // a host directory or file, bind-mounted
	MountOverlay MountKind = "overlay" // Lowers (and Sub in them), changes discarded
	MountTmpfs   MountKind = "tmpfs"
	MountData    MountKind = "data" // Data as a file: secrets, never on disk
	// MountSocket is a unix socket of the caller's in a scratch directory, which is given to UID and GID.
	MountSocket MountKind = "socket"
	// MountDevice is a device node of the host that the step may open. Anything else is refused.
	MountDevice MountKind = "device"
)

// Mount is one mount of a step. Targets are inside the rootfs and are resolved there, never on the host.
type Mount struct {
	Kind     MountKind
	Target   string
	Source   string   // dir, socket, device: host path
	Lowers   []string // overlay: top first
	Sub      string   // overlay: path inside
	ReadOnly bool
	Movable  bool // dir: it is the caller's own, on the file system of Scratch, and may be moved where nothing can be mounted
	Size     int64
	Mode     uint32 // tmpfs: 0 is that of the directory it covers, 01777 where there is none
	UID, GID int
	Data     []byte
	// Silent is a mount in /dev that changes no layer: else the directories on the way to a mount, /dev too, do not stay.
	Silent bool
}

// ExitError reports a process that ended with a code other than 0 or by a signal.
type ExitError struct {
	Code   int    // 128+n for signal n
	Signal string // "SIGKILL"; "" when it was not killed
	Reason string // why nothing was started (codes 126 and 127 of ours); else ""
	Limit  string // what bound of Resources it went over, and was ended for; else ""
}

func (e *ExitError) Error() string {
	switch {
	case e.Limit != "":
		return fmt.Sprintf("%s (exit code %d)", e.Limit, e.Code)
	case e.Reason != "":
		return fmt.Sprintf("%s (exit code %d)", e.Reason, e.Code)
	case e.Signal != "":
		return fmt.Sprintf("killed by %s (exit code %d)", e.Signal, e.Code)
	}
	return fmt.Sprintf("exit code %d", e.Code)
}

// Rung is one line of the ladder that doctor prints.
type Rung struct {
	Name   string // "user namespace", "ownership: subuid ranges"
	OK     bool
	Detail string // what was found
	Err    string // errno and where
	Mend   string // what to do
	Fixes  []Fix  // all that would mend it, by what runs this process
}

// Fix is one way to let steps run.
type Fix struct {
	Where  string // "docker, podman", "this host"
	Do     string // the setting, as it is written there
	Script string // a shell command that does it here; "" when it is done elsewhere
}
