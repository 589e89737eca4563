package serve

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"
)

const (
	// maxPassword is what bcrypt looks at: of a longer password any end would do.
	maxPassword = 72
	// maxCost bounds what one attempt to log in costs us: 2^14 rounds are about a second.
	maxCost = 14
	// maxUserFile and maxKnown bound memory.
	maxUserFile = 4 << 20
	maxKnown    = 10_000
)

// users are the names and passwords of a file that Apache's htpasswd writes. The
// file is read again when it has changed; a broken one leaves the last good one.
type users struct {
	file   watched
	log    *slog.Logger
	checks chan struct{} // bcrypt is slow on purpose: few at a time

	table  sync.Mutex
	hashes map[string][]byte
	decoy  []byte // hash that a name which does not exist is checked against
	salt   [32]byte
	known  map[[sha256.Size]byte]bool // names and passwords that have been checked
}

// openUsers reads the file.
func openUsers(name string, log *slog.Logger) (*users, error) {
	u := &users{file: watched{names: []string{name}}, log: log, checks: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1))}
	if _, err := rand.Read(u.salt[:]); err != nil {
		return nil, err
	}
	u.file.changed()
	return u, u.load()
}

func (u *users) load() error {
	f, err := os.Open(u.file.names[0])
	if err != nil {
		return fmt.Errorf("%w: the users: %w", ErrInvalid, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxUserFile+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("reading the users: %w", err)
	}
	hashes, err := parseUsers(data)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrInvalid, u.file.names[0], err)
	}
	cost := bcrypt.MinCost
	for _, h := range hashes {
		c, err := bcrypt.Cost(h)
		if err != nil {
			return err
		}
		cost = max(cost, c)
	}
	decoy, err := bcrypt.GenerateFromPassword(u.salt[:16], cost)
	if err != nil {
		return err
	}
	u.table.Lock()
	defer u.table.Unlock()
	u.hashes, u.decoy, u.known = hashes, decoy, map[[sha256.Size]byte]bool{}
	return nil
}

// parseUsers reads lines of NAME:HASH. Empty ones and those with # are skipped.
func parseUsers(data []byte) (map[string][]byte, error) {
	if len(data) > maxUserFile {
		return nil, fmt.Errorf("it is larger than %d bytes", maxUserFile)
	}
	out := map[string][]byte{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, hash, ok := strings.Cut(line, ":")
		switch cost, err := bcrypt.Cost([]byte(hash)); {
		case !ok || name == "":
			return nil, fmt.Errorf("line %d is not NAME:HASH", n)
		case err != nil || len(hash) != 60:
			return nil, fmt.Errorf("line %d: the password of %q is not of bcrypt: make it with `htpasswd -B`", n, name)
		case cost > maxCost:
			return nil, fmt.Errorf("line %d: the password of %q has the cost %d: at most %d", n, name, cost, maxCost)
		case out[name] != nil:
			return nil, fmt.Errorf("line %d: %q is there twice", n, name)
		}
		out[name] = []byte(hash)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return out, nil
}

// names are the users that there are, in order.
func (u *users) names() []string {
	u.table.Lock()
	defer u.table.Unlock()
	var list []string
	for n := range u.hashes {
		list = append(list, n)
	}
	slices.Sort(list)
	return list
}

// check reports whether the password is the user's. It takes as long for a name
// that does not exist.
func (u *users) check(ctx context.Context, name, password string) (bool, error) {
	if u.file.changed() {
		if err := u.load(); err != nil {
			u.log.Error("the users stay as they were", "error", err)
		} else {
			u.log.Info("the users were read again")
		}
	}
	if len(password) > maxPassword {
		return false, nil
	}
	u.table.Lock()
	hash, exists := u.hashes[name]
	sum := sha256.Sum256(fmt.Appendf(nil, "%s%d:%s:%s%s", u.salt[:], len(name), name, password, hash))
	known, decoy := u.known[sum], u.decoy
	u.table.Unlock()
	if known {
		return true, nil
	}
	select {
	case u.checks <- struct{}{}:
		defer func() { <-u.checks }()
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	if !exists {
		_ = bcrypt.CompareHashAndPassword(decoy, []byte(password))
		return false, nil
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil {
		return false, nil
	}
	u.table.Lock()
	defer u.table.Unlock()
	if len(u.known) >= maxKnown {
		clear(u.known)
	}
	if string(u.hashes[name]) == string(hash) { // not replaced while we looked
		u.known[sum] = true
	}
	return true, nil
}
