package graph

import "slices"

// Exec runs a process in the rootfs of input 0; its changes become a layer.
type Exec struct {
	Args      []string `json:"args"`
	Env       []string `json:"env"`            // KEY=value, added to the base config's
	Cwd       string   `json:"cwd,omitempty"`  // "" is the base config's, else /; made when it is missing, for the user
	User      string   `json:"user,omitempty"` // "user[:group]" by name or number, "" is 0:0
	Network   Network  `json:"network"`
	Mounts    []Mount  `json:"mounts,omitempty"`
	ClampTime *int64   `json:"clampTime,omitempty"` // SOURCE_DATE_EPOCH: later mtimes become this

	Security Security `json:"security,omitempty"`
	Hostname string   `json:"hostname,omitempty"` // "" is the sandbox's default
	Hosts    []Host   `json:"hosts,omitempty"`    // further lines of /etc/hosts
	Ulimits  []Ulimit `json:"ulimits,omitempty"`
	Proxy    *Proxy   `json:"proxy,omitempty"` // the caller's; reaches the process, never a key
	// Devices are what of the machine the process sees: VENDOR/CLASS=NAME of the Container Device Interface.
	Devices []string `json:"devices,omitempty"`
	// ExitCodes are those that are not a failure; none means 0 alone.
	ExitCodes []int `json:"exitCodes,omitempty"`
	// KeepStubParents leaves the missing parents of mount points in the layer; else they go with the mount points.
	KeepStubParents bool `json:"keepStubParents,omitempty"`
	// RootReadOnly mounts the rootfs read-only: the result is input 0 without a layer.
	RootReadOnly bool `json:"rootReadOnly,omitempty"`
	// RootDiscard throws the changes of the rootfs away: the result is input 0 without a layer.
	RootDiscard bool `json:"rootDiscard,omitempty"`
	// RootSource is the directory of input 0 that is the rootfs; "" is all of it. Only with RootReadOnly or RootDiscard.
	RootSource string `json:"rootSource,omitempty"`
}

// Network says what a step may reach.
type Network string

// The networks of a step.
const (
	NetworkNone Network = "none"
	NetworkHost Network = "host"
	// NetworkDefault is what a Dockerfile's RUN has that says nothing: a network, as the worker can give it. The
	// local worker gives the host's, as rootless BuildKit does.
	NetworkDefault Network = "default"
)

// Security says what a step may do.
type Security string

// The securities of a step.
const (
	SecuritySandbox Security = ""
	// SecurityInsecure is RUN --security=insecure: all capabilities that the builder has, and its devices.
	SecurityInsecure Security = "insecure"
)

// Host is a line of /etc/hosts.
type Host struct {
	Name string `json:"name"`
	IP   string `json:"ip"`
}

// Ulimit is a resource limit; -1 is unlimited.
type Ulimit struct {
	Name string `json:"name"` // "nofile", in docker's words
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

// Proxy is proxies for a process: each that is not empty is set as the upper and the lower case variable, unless Env has it.
type Proxy struct {
	HTTP  string `json:"http,omitempty"`  // HTTP_PROXY
	HTTPS string `json:"https,omitempty"` // HTTPS_PROXY
	FTP   string `json:"ftp,omitempty"`   // FTP_PROXY
	No    string `json:"no,omitempty"`    // NO_PROXY
	All   string `json:"all,omitempty"`   // ALL_PROXY
}

// MountType is the kind of a mount, in BuildKit's words.
type MountType string

// The types of mounts.
const (
	MountBind   MountType = "bind"
	MountCache  MountType = "cache"
	MountTmpfs  MountType = "tmpfs"
	MountSecret MountType = "secret"
	MountSSH    MountType = "ssh"
)

// Mount is something else than the rootfs that a step sees.
type Mount struct {
	Type     MountType `json:"type"`
	Target   string    `json:"target"`             // absolute; "" for a secret that is only a variable
	Input    int       `json:"input,omitempty"`    // bind, cache: index in Inputs; 0 is none: an empty directory
	Source   string    `json:"source,omitempty"`   // bind, cache: path in that input
	ID       string    `json:"id,omitempty"`       // cache, secret, ssh
	Sharing  string    `json:"sharing,omitempty"`  // cache: shared (default), private, locked
	Writable bool      `json:"writable,omitempty"` // bind: changes are discarded, or are Output
	ReadOnly bool      `json:"readOnly,omitempty"` // cache
	// Output (bind, Writable) makes the input with the step's changes at the mount the result's output of this number; see
	// [Output]. 0 is none.
	Output   int     `json:"output,omitempty"`
	Size     int64   `json:"size,omitempty"` // tmpfs: bytes; 0 is the kernel's default
	Mode     *uint32 `json:"mode,omitempty"` // cache directory, secret file (nil: 0400), ssh socket (nil: 0600)
	UID      int     `json:"uid,omitempty"`
	GID      int     `json:"gid,omitempty"`
	Required bool    `json:"required,omitempty"` // secret, ssh: absent is an error
	Env      string  `json:"env,omitempty"`      // secret: as a variable instead of a file
	// Keyed says what of a bind's input is in the key: the content of Source ("content"), the whole input ("input"), or
	// "" for the first when the mount is not an Output, else the second.
	Keyed string `json:"keyed,omitempty"`
}

// What of a bind mount's input is in the key of the step.
const (
	KeyedByContent = "content"
	KeyedByInput   = "input"
)

// Outputs are the mounts whose changes are results beside the rootfs, by their number.
func (e Exec) Outputs() map[int]Mount {
	var out map[int]Mount
	for _, m := range e.Mounts {
		if m.Output > 0 {
			if out == nil {
				out = map[int]Mount{}
			}
			out[m.Output] = m
		}
	}
	return out
}

// Output is one result of a step that has several: its input is the step, and Index (1 or more) the [Mount.Output].
// The solver picks it; no worker runs it.
type Output struct {
	Index int `json:"index"`
}

// Kind implements Op.
func (Exec) Kind() string   { return "exec" }
func (Output) Kind() string { return "output" }

// ForKey implements Keyed.
func (e Exec) ForKey() Op {
	e.Proxy = nil
	e.Hosts = slices.Clone(e.Hosts)
	for i := range e.Hosts {
		e.Hosts[i].IP = ""
	}
	e.Mounts = slices.Clone(e.Mounts)
	for i := range e.Mounts {
		m := &e.Mounts[i]
		switch m.Type {
		case MountCache:
			m.ID, m.Sharing, m.Input, m.Source = "", "", 0, ""
		case MountBind:
			m.Source = "" // the content is in the key
		case MountSecret, MountSSH, MountTmpfs: // that there is one counts, what it holds is nowhere in the graph
		}
	}
	return e
}
