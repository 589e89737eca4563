package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What lies below the root, besides one directory for every kind of record.
const (
	blobsDir     = ocispec.ImageBlobsDir
	refsDir      = "refs"
	ingestDir    = "ingest"
	leasesDir    = "leases"
	snapshotsDir = "snapshots"
	damagedDir   = "damaged" // what readers found to be corrupt; gc and Repair empty it

	layoutFile   = ocispec.ImageLayoutFile
	indexFile    = ocispec.ImageIndexFile
	versionFile  = "store.json"
	gcLock       = "gc.lock"       // shared: between looking at a blob and its lease; exclusive: gc
	turnLock     = "turn.lock"     // held by a gc that waits, so that users do not starve it
	indexLock    = "index.lock"    // exclusive: refs and index.json change
	snapshotLock = "snapshot.lock" // shared: snapshots are in use; exclusive: gc takes them out
	indexStale   = "index.stale"   // exists while index.json lags behind the refs
	sizeFile     = "size"          // an estimate of what all of it takes
	bootFile     = "boot"          // the machine's boot of the last recovery
)

// reserved are the names at the root that are not kinds of records.
var reserved = map[string]bool{
	blobsDir: true, refsDir: true, ingestDir: true, leasesDir: true, snapshotsDir: true, damagedDir: true,
	layoutFile: true, indexFile: true, versionFile: true, gcLock: true, turnLock: true, indexLock: true,
	snapshotLock: true, indexStale: true, bootFile: true, sizeFile: true, lostFound: true,
}

const (
	lostFound = "lost+found" // of a freshly made file system
	tmpPrefix = ".tmp-"      // of files that become something by rename

	dirMode    = 0o700
	fileMode   = 0o600 // of everything, and of a blob that is not known to be durable
	syncedMode = 0o400 // of a blob that is

	layoutVersion = 1
)

// version is the content of store.json. It is written first and says that the
// directory is ours.
type version struct {
	Version int `json:"manifestctlStore"`
}

// makeLayout makes what is missing of the store, and refuses what is not one.
func (s *Store) makeLayout(ctx context.Context) error {
	err := makeDirs(s.root)
	if err == nil {
		s.root, err = filepath.EvalSymlinks(s.root)
		s.gates.dir = s.root
	}
	if err != nil {
		return s.refuse(err)
	}
	fi, err := os.Stat(s.root)
	if err != nil {
		return s.refuse(err)
	}
	if uid, me, foreign := foreignOwner(fi); foreign {
		return &NotAStoreError{Root: s.root, Why: fmt.Sprintf("is owned by uid %d and you are uid %d: choose another with --root", uid, me)}
	}
	switch err := s.checkLayout(); {
	case err == nil:
	case errors.Is(err, ErrNotFound):
		if err := s.claim(); err != nil {
			return err
		}
	default:
		return err
	}
	if fi.Mode().Perm()&0o022 != 0 || fi.Mode().Perm()&dirMode != dirMode {
		if err := os.Chmod(s.root, fi.Mode().Perm()&^0o022|dirMode); err != nil {
			return s.refuse(err)
		}
	}
	for _, dir := range []string{
		blobsDir, filepath.Join(blobsDir, digest.SHA256.String()), refsDir, ingestDir, leasesDir, snapshotsDir, damagedDir,
	} {
		if err := ensureDir(s.path(dir)); err != nil {
			return s.refuse(err)
		}
	}
	return s.ensureFiles(ctx)
}

// ensureFiles makes the files that an OCI layout has.
func (s *Store) ensureFiles(ctx context.Context) error {
	missing := func(name string) bool {
		_, err := os.Lstat(s.path(name))
		return errors.Is(err, fs.ErrNotExist)
	}
	if !missing(layoutFile) && !missing(indexFile) {
		return nil
	}
	leave, err := s.using(ctx)
	if err != nil {
		return s.refuse(err)
	}
	defer leave()
	if missing(layoutFile) {
		data, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
		if err != nil {
			return err
		}
		if err := s.replaceFile(layoutFile, data, false); err != nil {
			return s.refuse(err)
		}
	}
	if missing(indexFile) {
		if err := s.reindex(ctx); err != nil {
			return s.refuse(err)
		}
	}
	return nil
}

// claim makes a directory ours by writing store.json, if nobody else's things are in it.
func (s *Store) claim() error {
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return s.refuse(err)
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case name == layoutFile:
			// Another process may have claimed it since checkLayout looked.
			if s.checkLayout() == nil {
				return nil
			}
			return &NotAStoreError{Root: s.root, Why: "is an OCI image layout and not a store: read it as oci:DIR, or choose another --root"}
		case !reserved[name] && !strings.HasPrefix(name, tmpPrefix):
			if s.checkLayout() == nil {
				return nil
			}
			return &NotAStoreError{Root: s.root, Why: fmt.Sprintf("is not a store and not empty (it has %q): choose another --root", name)}
		}
	}
	data, err := json.Marshal(version{Version: layoutVersion})
	if err != nil {
		return err
	}
	err = s.replaceFile(versionFile, data, true)
	// Another process may have claimed it, and collected our temporary file.
	if err != nil && s.checkLayout() != nil {
		return s.refuse(err)
	}
	return nil
}

// checkLayout reports ErrNotFound when the root is missing or no store yet, and
// refuses one of a version that this program does not know.
func (s *Store) checkLayout() error {
	fi, err := os.Stat(s.root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &NotAStoreError{Root: s.root, Why: "does not exist: build or pull something first, or name another --root", Err: ErrNotFound}
	case err != nil:
		return s.refuse(err)
	case !fi.IsDir():
		return &NotAStoreError{Root: s.root, Why: "is not a directory: choose another --root"}
	}
	if real, err := filepath.EvalSymlinks(s.root); err == nil {
		s.root, s.gates.dir = real, real
	}
	data, err := os.ReadFile(s.path(versionFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &NotAStoreError{Root: s.root, Why: "is not a store: build or pull something first, or name another --root", Err: ErrNotFound}
	case err != nil:
		return s.refuse(err)
	}
	var v version
	if err := json.Unmarshal(data, &v); err != nil || v.Version < 1 {
		return &NotAStoreError{Root: s.root, Why: versionFile + " is damaged: move the directory away, or choose another --root"}
	}
	if v.Version > layoutVersion {
		return &NotAStoreError{Root: s.root, Why: fmt.Sprintf("has layout version %d and this program knows %d: use a newer manifestctl, or another --root", v.Version, layoutVersion)}
	}
	return nil
}

// refuse turns what the system said about the root into a next step.
func (s *Store) refuse(err error) error {
	err = storageError(s.root, 0, err)
	why := "cannot be used"
	switch {
	case errors.Is(err, ErrNoSpace):
		return err
	case isReadOnlyFS(err):
		why = "is on a read-only file system: mount it writable, or choose another --root"
	case errors.Is(err, fs.ErrPermission):
		why = "permission denied: become its owner, or choose another --root"
	case isNotDir(err):
		why = "is not a directory: choose another --root"
	case noLocks(err):
		why = "is on a file system without working locks: choose a --root on a local disk"
	}
	return &NotAStoreError{Root: s.root, Why: why, Err: err}
}

// makeDirs makes dir and what lacks above it.
func makeDirs(dir string) error {
	if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
		return nil
	}
	if up := filepath.Dir(dir); up != dir {
		if err := makeDirs(up); err != nil {
			return err
		}
	}
	return ensureDir(dir)
}

// ensureDir makes dir, private whatever the umask is.
func ensureDir(dir string) error {
	err := os.Mkdir(dir, dirMode)
	switch {
	case err == nil:
		return os.Chmod(dir, dirMode)
	case errors.Is(err, fs.ErrExist):
		fi, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if !fi.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: errNotDir}
		}
		return nil
	}
	return err
}

// replaceFile writes root/name whole or not at all; durable also syncs it and
// the directory.
func (s *Store) replaceFile(name string, data []byte, durable bool) (err error) {
	path := s.path(name)
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, tmpPrefix+"*")
	if err != nil {
		return storageError(path, int64(len(data)), err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = storageError(path, int64(len(data)), err)
		}
	}()
	if err := f.Chmod(fileMode); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if durable {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	if durable {
		return syncDir(dir)
	}
	return nil
}
