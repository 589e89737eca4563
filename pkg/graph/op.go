package graph

import "encoding/json"

// Op is one of [Image], [Local], [HTTP], [Git], [Exec], [Layer], [Copy], [Remove], [Accounts], [File], [Merge], [Diff]
// and [Output]. Specs are made of Layer, Copy, Remove and Accounts; definitions of LLB (Dockerfiles) of File, Merge
// and Diff; both of Image, Local and Exec.
type Op interface {
	// Kind is the operation's name in digests and messages.
	Kind() string
}

// Keyed is an Op that a step record is not found by as a whole.
type Keyed interface {
	Op
	// ForKey is the operation without what must not decide whether a record is a hit: the names of caches, the
	// caller's proxies, and the places of inputs whose content is in the key anyway.
	ForKey() Op
}

// Layer makes a layer from declared files; nothing is unpacked for it.
type Layer struct {
	Entries []Entry `json:"entries"`
	Time    int64   `json:"time"` // mtime of parents that had to be made, seconds since the epoch
}

// EntryType is the kind of a declared file.
type EntryType string

// The types of entries.
const (
	TypeFile      EntryType = "file"
	TypeDirectory EntryType = "directory"
	TypeSymlink   EntryType = "symlink"
	TypeHardlink  EntryType = "hardlink"
	TypeFifo      EntryType = "fifo"
	TypeChar      EntryType = "char"
	TypeBlock     EntryType = "block"
	TypeArchive   EntryType = "archive" // a tar of the context, unpacked at Path
)

// Entry is one declared file. Paths are absolute in the image.
type Entry struct {
	Type    EntryType `json:"type"`
	Path    string    `json:"path"`
	Context string    `json:"context,omitempty"` // file, archive: name of the context Source is in
	Source  string    `json:"source,omitempty"`  // file, archive: slash path in the context
	Content []byte    `json:"content,omitempty"` // file: literal bytes when Source is ""
	Target  string    `json:"target,omitempty"`  // symlink: as written; hardlink: path in the image
	Mode    *uint32   `json:"mode,omitempty"`    // 07777; nil: 0755 directories and executables, else 0644
	Owner   string    `json:"owner,omitempty"`   // "user[:group]", names looked up in the rootfs; "" is 0:0
	Major   int64     `json:"major,omitempty"`
	Minor   int64     `json:"minor,omitempty"`
	Xattrs  Xattrs    `json:"xattrs,omitempty"`
	Time    int64     `json:"time"` // mtime, seconds since the epoch
	// IfMissing leaves a directory that the rootfs has (symlinks followed) as it is: the directories
	// that come with a tree of files, which must not change modes and owners of the base's.
	IfMissing bool   `json:"ifMissing,omitempty"`
	At        string `json:"-"` // "rootfs.yaml:12:7" for messages
}

// Xattrs are extended attributes: raw bytes as a string, by name. In a digest they are
// base64, because JSON would make one value of all bytes that are not UTF-8.
type Xattrs map[string]string

// MarshalJSON implements json.Marshaler.
func (x Xattrs) MarshalJSON() ([]byte, error) {
	raw := make(map[string][]byte, len(x))
	for name, value := range x {
		raw[name] = []byte(value)
	}
	return json.Marshal(raw)
}

// UnmarshalJSON implements json.Unmarshaler.
func (x *Xattrs) UnmarshalJSON(b []byte) error {
	var raw map[string][]byte
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	*x = make(Xattrs, len(raw))
	for name, value := range raw {
		(*x)[name] = string(value)
	}
	return nil
}

// Copy copies a path of input 1 into input 0.
type Copy struct {
	Source string  `json:"source"` // in input 1; may have globs
	Path   string  `json:"path"`   // final name, or a directory when several match
	Owner  string  `json:"owner,omitempty"`
	Mode   *uint32 `json:"mode,omitempty"`
	Time   int64   `json:"time"` // mtime of parents that had to be made
}

// Remove deletes paths of input 0 (globs allowed). A literal path that does not
// exist is an error; a glob may match nothing.
type Remove struct {
	Paths []string `json:"paths"`
}

// Kind implements Op.
func (Layer) Kind() string  { return "layer" }
func (Copy) Kind() string   { return "copy" }
func (Remove) Kind() string { return "remove" }

var _ = []Op{
	Image{}, Local{}, HTTP{}, Git{}, Exec{}, Layer{}, Copy{}, Remove{}, Accounts{}, File{}, Merge{}, Diff{}, Output{},
}
