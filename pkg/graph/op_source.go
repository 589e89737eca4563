package graph

// Image is a base image for the vertex's platform.
type Image struct {
	Ref string `json:"ref"` // as package ref prints it: "docker.io/library/debian:bookworm", "oci:dir@sha256:..."
	// FilesOnly leaves the config out of the result: what is built on it brings its own environment, user and
	// working directory (LLB), and depends on the layers alone.
	FilesOnly bool `json:"filesOnly,omitempty"`
	Pull      bool `json:"pull,omitempty"`   // ask for the tag again even when it is known
	Layers    *int `json:"layers,omitempty"` // only this many, from the bottom
	// Checksum is what the manifest or index must have as its digest; "" is any.
	Checksum string `json:"checksum,omitempty"`
}

// Local is files of a directory on this machine.
//
// A spec uses it for bind mounts and chooses by Paths; modes are then normalised (0755 for directories and
// executables, else 0644) and times are 0. A definition of LLB says Raw and chooses by Include, Exclude and Follow.
type Local struct {
	Context string   `json:"context"`           // name of the context, "context" for the main one
	Paths   []string `json:"paths,omitempty"`   // slash separated, relative to the context; a directory means all below it
	Include []string `json:"include,omitempty"` // Raw: patterns of what is taken; none is all
	Exclude []string `json:"exclude,omitempty"` // .dockerignore patterns in effect
	// Follow is paths and patterns (Raw): what they name is taken, and what symlinks on the way lead to. None is all.
	Follow []string `json:"follow,omitempty"`
	// Raw keeps modes, times and extended attributes (but those of com.apple.*) as they are on disk. Owners are 0:0 always.
	Raw bool `json:"raw,omitempty"`
}

// HTTP is one file that is fetched. The result holds it in its root directory, as Filename.
type HTTP struct {
	URL      string `json:"url"`
	Filename string `json:"filename"`           // no slash; "" is what the server calls it, else the last part of the URL, else "download"
	Checksum string `json:"checksum,omitempty"` // "sha256:..."; other bytes are an error
	Mode     uint32 `json:"mode"`               // 07777
	UID      int    `json:"uid,omitempty"`
	GID      int    `json:"gid,omitempty"`
	// AuthSecret names the secret that is sent as the Authorization header, when there is one of that name.
	AuthSecret string            `json:"authSecret,omitempty"`
	Headers    map[string]string `json:"headers,omitempty"`
}

// Git is a checkout of one commit.
type Git struct {
	Remote      string `json:"remote"`                // as git fetches it: URL or scp form
	Ref         string `json:"ref,omitempty"`         // branch, tag, commit; "" is the remote's HEAD
	Subdir      string `json:"subdir,omitempty"`      // only this directory of it, as the root
	Checksum    string `json:"checksum,omitempty"`    // hex, may be a prefix: the commit (or tag object) that Ref must be
	KeepGitDir  bool   `json:"keepGitDir,omitempty"`  // .git stays
	NoSubmodule bool   `json:"noSubmodule,omitempty"` // submodules are left out
	// CommitTime makes the commit's time the mtime of all files; else it is the time of the checkout, which
	// is in no key.
	CommitTime bool `json:"commitTime,omitempty"`
	// ByCommit fetches Checksum instead of Ref; Ref is then only a name that is given to it.
	ByCommit bool `json:"byCommit,omitempty"`
	// TokenSecret and HeaderSecret name secrets for https: a token, or the whole Authorization header. Each is tried as
	// NAME.HOST first, then as NAME. One that was not given is left out.
	TokenSecret  string `json:"tokenSecret,omitempty"`
	HeaderSecret string `json:"headerSecret,omitempty"`
	// SSHAgent names the ssh agent that is used for ssh; KnownHosts is the content of known_hosts, "" checks nothing.
	SSHAgent   string `json:"sshAgent,omitempty"`
	KnownHosts string `json:"knownHosts,omitempty"`
}

// Kind implements Op.
func (Image) Kind() string { return "image" }
func (Local) Kind() string { return "local" }
func (HTTP) Kind() string  { return "http" }
func (Git) Kind() string   { return "git" }

// ForKey implements Keyed.
func (h HTTP) ForKey() Op {
	h.AuthSecret = ""
	return h
}

// ForKey implements Keyed.
func (g Git) ForKey() Op {
	g.TokenSecret, g.HeaderSecret, g.SSHAgent, g.KnownHosts = "", "", "", ""
	return g
}

var _ = []Keyed{HTTP{}, Git{}, Exec{}, File{}}
