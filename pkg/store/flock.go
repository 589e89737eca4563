package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// errLocked is what tryLock reports when somebody else holds the lock.
var errLocked = errors.New("locked by another user of the store")

// lock takes f's lock, exclusive or shared, and waits for it until ctx ends. It
// polls, because a thread that sleeps in flock cannot be called back.
func lock(ctx context.Context, f *os.File, exclusive bool) error {
	wait := 100 * time.Microsecond
	for {
		err := tryLock(f, exclusive)
		if !errors.Is(err, errLocked) {
			if err != nil {
				return fmt.Errorf("locking %s: %w", f.Name(), err)
			}
			return nil
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("waiting for %s, which another process holds: %w", f.Name(), context.Cause(ctx))
		case <-t.C:
		}
		wait = min(wait*2, 10*time.Millisecond)
	}
}

// openLockFile opens a file that exists for its lock or its name alone.
func openLockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode)
	}
	if errors.Is(err, fs.ErrPermission) {
		// Another process made it just now under a umask that takes all rights away.
		if os.Chmod(path, fileMode) == nil {
			f, err = os.OpenFile(path, os.O_RDWR, 0)
		}
	}
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err == nil && fi.Mode().Perm() != fileMode {
		_ = f.Chmod(fileMode) // the umask's work
	}
	return f, nil
}

// lockPath takes the exclusive lock of root/name until the returned function is called.
func (s *Store) lockPath(ctx context.Context, name string) (unlock func(), err error) {
	f, err := openLockFile(s.path(name))
	if err != nil {
		return nil, storageError(s.path(name), 0, err)
	}
	if err := lock(ctx, f, true); err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

// createLocked makes a file in dir that is locked before anybody can take it
// for a dead process' one.
func createLocked(dir, pattern string) (*os.File, error) {
	for {
		f, err := os.CreateTemp(dir, pattern)
		if err != nil {
			return nil, storageError(filepath.Join(dir, pattern), 0, err)
		}
		drop := func(err error) (*os.File, error) {
			_ = f.Close()
			_ = os.Remove(f.Name())
			return nil, storageError(f.Name(), 0, err)
		}
		if err := f.Chmod(fileMode); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return drop(err)
		}
		err = tryLock(f, true)
		if err != nil && !errors.Is(err, errLocked) {
			return drop(err)
		}
		// A collection between the two calls above has found it unlocked and
		// removed it while it held the lock itself.
		mine, err1 := f.Stat()
		there, err2 := os.Lstat(f.Name())
		if err == nil && err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return f, nil
		}
		_ = f.Close()
		if errors.Is(err, errLocked) {
			_ = os.Remove(f.Name()) // a check looked at it, which leaves it
		}
	}
}

// gates is the way in for those who take part in the protocol between users
// and collections. A user holds gc.lock shared from looking at a blob until its
// lease is written, which takes microseconds. A collection holds it exclusively;
// while it waits it holds turn.lock, at which new users queue up.
type gates struct {
	dir string

	mu     sync.Mutex // guards the two below
	free   []gate     // open files that nobody uses now
	closed bool
}

type gate struct{ turn, gc *os.File }

func (g *gates) get() (gate, error) {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return gate{}, fmt.Errorf("store %s: %w", g.dir, fs.ErrClosed)
	}
	if n := len(g.free); n > 0 {
		got := g.free[n-1]
		g.free = g.free[:n-1]
		g.mu.Unlock()
		return got, nil
	}
	g.mu.Unlock()
	turn, err := openLockFile(filepath.Join(g.dir, turnLock))
	if err != nil {
		return gate{}, storageError(filepath.Join(g.dir, turnLock), 0, err)
	}
	gc, err := openLockFile(filepath.Join(g.dir, gcLock))
	if err != nil {
		_ = turn.Close()
		return gate{}, storageError(filepath.Join(g.dir, gcLock), 0, err)
	}
	return gate{turn: turn, gc: gc}, nil
}

func (g *gates) enter(ctx context.Context, exclusive bool) (leave func(), err error) {
	p, err := g.get()
	if err != nil {
		return nil, err
	}
	if err := lock(ctx, p.turn, exclusive); err != nil {
		p.close()
		return nil, err
	}
	if err := lock(ctx, p.gc, exclusive); err != nil {
		p.close()
		return nil, err
	}
	if err := unlock(p.turn); err != nil {
		p.close()
		return nil, fmt.Errorf("unlocking %s: %w", p.turn.Name(), err)
	}
	return func() {
		if unlock(p.gc) != nil {
			p.close()
			return
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.free) < 16 && !g.closed {
			g.free = append(g.free, p)
			return
		}
		p.close()
	}, nil
}

func (p gate) close() {
	_ = p.turn.Close()
	_ = p.gc.Close()
}

func (g *gates) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.free {
		p.close()
	}
	g.free, g.closed = nil, true
}

// using is held between looking at content and having leased it.
func (s *Store) using(ctx context.Context) (leave func(), err error) {
	return s.gates.enter(ctx, false)
}

// collecting is held while content is taken away.
func (s *Store) collecting(ctx context.Context) (leave func(), err error) {
	return s.gates.enter(ctx, true)
}

// usingToRead is using, which a reader may do without where it cannot write.
func (s *Store) usingToRead() (leave func(), err error) {
	s.mu.Lock()
	blind := s.blind
	s.mu.Unlock()
	if blind {
		return func() {}, nil
	}
	leave, err = s.using(context.Background())
	if err == nil || !s.readOnly {
		return leave, err
	}
	s.mu.Lock()
	s.blind = true
	s.mu.Unlock()
	return func() {}, nil
}
