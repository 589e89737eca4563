package layer

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// OwnerXattr is the extended attribute that records what a file is in the image when
// the file on disk cannot be it: its owner with a single uid, its kind and device number where mknod is refused.
const OwnerXattr = "user.manifestctl.owner"

// Owner is what a file is in the image. Symlinks, fifos and sockets cannot carry user xattrs;
// theirs stand in the sidecar file beside the tree ([ReadOwners]).
type Owner struct {
	UID, GID uint32
	Type     uint32 // S_IFBLK or S_IFCHR for a device that is a regular file on disk; 0: what it is on disk
	Rdev     uint64 // as stat has it
}

// ownerSize is the attribute's length: four little-endian fields.
const ownerSize = 20

// MarshalBinary is the attribute's value.
func (o Owner) MarshalBinary() ([]byte, error) {
	b := make([]byte, 0, ownerSize)
	b = binary.LittleEndian.AppendUint32(b, o.UID)
	b = binary.LittleEndian.AppendUint32(b, o.GID)
	b = binary.LittleEndian.AppendUint32(b, o.Type)
	return binary.LittleEndian.AppendUint64(b, o.Rdev), nil
}

// UnmarshalBinary reads the attribute's value.
func (o *Owner) UnmarshalBinary(b []byte) error {
	if len(b) != ownerSize {
		return fmt.Errorf("%w: %s of %d bytes", ErrInvalid, OwnerXattr, len(b))
	}
	o.UID = binary.LittleEndian.Uint32(b)
	o.GID = binary.LittleEndian.Uint32(b[4:])
	o.Type = binary.LittleEndian.Uint32(b[8:])
	o.Rdev = binary.LittleEndian.Uint64(b[12:])
	return nil
}

// OwnersFile is the sidecar of the tree at dir.
func OwnersFile(dir string) string { return filepath.Clean(dir) + ".owners" }

// ownerLine is one line of the sidecar. Path is base64, because names are bytes.
type ownerLine struct {
	Path []byte `json:"path"`
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	Type uint32 `json:"type,omitempty"`
	Rdev uint64 `json:"rdev,omitempty"`
}

// ReadOwners reads the sidecar of the tree at dir, by clean relative path. None is an empty map.
func ReadOwners(dir string) (map[string]Owner, error) {
	owners := map[string]Owner{}
	f, err := os.Open(OwnersFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return owners, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading owners: %w", err)
	}
	defer f.Close()
	d := json.NewDecoder(bufio.NewReader(f))
	for d.More() {
		var l ownerLine
		if err := d.Decode(&l); err != nil {
			return nil, fmt.Errorf("reading owners of %s: %w", filepath.Base(dir), err)
		}
		owners[string(l.Path)] = Owner{l.UID, l.GID, l.Type, l.Rdev}
	}
	return owners, nil
}

// RenameTree renames a tree with its sidecar.
func RenameTree(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	if err := os.Rename(OwnersFile(from), OwnersFile(to)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// WriteOwners writes the sidecar of the tree at dir, sorted, by rename; an empty map removes it.
func WriteOwners(dir string, owners map[string]Owner) error {
	name := OwnersFile(dir)
	if len(owners) == 0 {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("writing owners: %w", err)
		}
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("writing owners: %w", err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone after the rename
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	for _, p := range slices.Sorted(maps.Keys(owners)) {
		o := owners[p]
		if err := enc.Encode(ownerLine{[]byte(p), o.UID, o.GID, o.Type, o.Rdev}); err != nil {
			return errors.Join(fmt.Errorf("writing owners: %w", err), f.Close())
		}
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		return fmt.Errorf("writing owners: %w", err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return fmt.Errorf("writing owners: %w", err)
	}
	return nil
}
