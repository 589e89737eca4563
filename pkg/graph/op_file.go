package graph

import (
	"path"
	"slices"
)

// File changes the rootfs of input 0 (nil: scratch) by actions, one after the other. All of them together are one layer.
//
// Every path is absolute or relative to the root of what it is in, and stays inside: symlinks are resolved as if that
// root were /.
type File struct {
	Actions []FileAction `json:"actions"` // one or more
}

// FileAction is one change: exactly one field is set.
type FileAction struct {
	Copy    *FileCopy    `json:"copy,omitempty"`
	Mkfile  *FileMkfile  `json:"mkfile,omitempty"`
	Mkdir   *FileMkdir   `json:"mkdir,omitempty"`
	Symlink *FileSymlink `json:"symlink,omitempty"`
	Rm      *FileRm      `json:"rm,omitempty"`
}

// FileCopy copies as cp -a does. The names of the fields are those of BuildKit's FileActionCopy, whose semantics these are.
type FileCopy struct {
	Input int    `json:"input"` // index in Inputs of what is copied from; 0 is the rootfs as it is before the vertex; -1 nothing (scratch)
	Src   string `json:"src"`
	// Dest is a directory when it ends in / or /. or is one already, else the new name.
	Dest  string  `json:"dest"`
	Owner *Owner  `json:"owner,omitempty"` // nil: as in the source
	Mode  *uint32 `json:"mode,omitempty"`  // 07777, for files, directories and parents that are made; nil: as in the source
	// ModeText is a symbolic mode ("u+x,g-w"), applied to the source's; "" is none. Not with Mode.
	ModeText string `json:"modeText,omitempty"`
	Time     *int64 `json:"time,omitempty"` // mtime of what is copied, nanoseconds since the epoch; nil: as in the source

	FollowSymlink   bool `json:"followSymlink,omitempty"`   // a symlink as the last component of Src is followed
	DirContents     bool `json:"dirContents,omitempty"`     // of a directory, copy what is in it
	Unpack          bool `json:"unpack,omitempty"`          // a tar (gzip, bzip2, xz, zstd) is unpacked at Dest
	CreateDestPath  bool `json:"createDestPath,omitempty"`  // make missing parents, 0755 or Mode; else they are an error
	Wildcard        bool `json:"wildcard,omitempty"`        // Src is a pattern of path/filepath
	EmptyWildcard   bool `json:"emptyWildcard,omitempty"`   // and may match nothing
	ReplaceExisting bool `json:"replaceExisting,omitempty"` // what is of another type at the destination is replaced; else it is an error

	Include  []string `json:"include,omitempty"`  // patterns (as in .dockerignore) relative to Src; none is all
	Exclude  []string `json:"exclude,omitempty"`  // likewise; wins
	Required []string `json:"required,omitempty"` // paths that Include must have led to
}

// FileMkfile makes a file, or replaces the content of one.
type FileMkfile struct {
	Path  string `json:"path"`
	Mode  uint32 `json:"mode"` // 0777
	Data  []byte `json:"data"`
	Owner *Owner `json:"owner,omitempty"`
	Time  *int64 `json:"time,omitempty"` // nanoseconds since the epoch; nil: now
}

// FileMkdir makes a directory. One that is there is left as it is when Parents is set, else it is an error.
type FileMkdir struct {
	Path    string `json:"path"`
	Mode    uint32 `json:"mode"` // 07777
	Parents bool   `json:"parents,omitempty"`
	Owner   *Owner `json:"owner,omitempty"` // of every directory that is made
	Time    *int64 `json:"time,omitempty"`  // likewise
}

// FileSymlink makes a symlink at New.
type FileSymlink struct {
	Old   string `json:"old"` // its text
	New   string `json:"new"`
	Owner *Owner `json:"owner,omitempty"`
	Time  *int64 `json:"time,omitempty"`
}

// FileRm removes a file or a tree. The last component is not followed when it is a symlink.
type FileRm struct {
	Path     string `json:"path"`
	MayMiss  bool   `json:"mayMiss,omitempty"`
	Wildcard bool   `json:"wildcard,omitempty"`
}

// Owner is a user and a group. A nil Group of a user by number or name is the group of the same number as the user (a
// number), or the user's primary group (a name). A nil User is 0.
type Owner struct {
	User  *Account `json:"user,omitempty"`
	Group *Account `json:"group,omitempty"`
}

// Account is a user or a group: a name that is looked up in /etc/passwd or /etc/group of an input, or a number. A
// name that is not there is 0.
type Account struct {
	Name  string `json:"name,omitempty"`
	Input int    `json:"input,omitempty"` // of Name: index in Inputs; 0 is the rootfs as it is before the vertex, -1 is scratch
	ID    int    `json:"id,omitempty"`    // when Name is ""
}

// Merge puts inputs on top of each other, bottom first: the layers of the first, then those of each further one. What a
// later input has wins, and what it deleted is deleted. A nil input is scratch.
type Merge struct{}

// Diff is what input 1 changed on input 0: one or more layers on scratch. A nil input is scratch.
type Diff struct{}

// Kind implements Op.
func (File) Kind() string  { return "file" }
func (Merge) Kind() string { return "merge" }
func (Diff) Kind() string  { return "diff" }

// ForKey implements Keyed: of the place of a copy's source only the name counts, its content is in the key.
func (f File) ForKey() Op {
	f.Actions = slices.Clone(f.Actions)
	for i, a := range f.Actions {
		if a.Copy != nil && a.Copy.Input > 0 {
			c := *a.Copy
			c.Src = path.Base(c.Src)
			f.Actions[i].Copy = &c
		}
	}
	return f
}
