package build

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// ErrSSH is the kind of errors for sockets and keys of --ssh.
var ErrSSH = errors.New("ssh agent")

// agents are the ssh agents of a build by id: sockets of the caller, or agents of our own that hold keys.
type agents struct {
	sockets map[string]string
	dir     string // of our own sockets
	closing []net.Listener
	serving sync.WaitGroup
}

// newAgents opens what --ssh names. A path is a socket, or a file with a private key that needs no passphrase.
func newAgents(ids map[string][]string) (_ *agents, err error) {
	a := &agents{sockets: map[string]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	for id, paths := range ids {
		if len(paths) == 1 {
			info, err := os.Stat(paths[0])
			if err != nil {
				return nil, fmt.Errorf("%w %q: %w", ErrSSH, id, err)
			}
			if info.Mode()&os.ModeSocket != 0 {
				a.sockets[id] = paths[0]
				continue
			}
		}
		if err := a.serve(id, paths); err != nil {
			return nil, fmt.Errorf("%w %q: %w", ErrSSH, id, err)
		}
	}
	return a, nil
}

// serve starts an agent that holds keys.
func (a *agents) serve(id string, paths []string) error {
	ring := agent.NewKeyring()
	for _, p := range paths {
		raw, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		key, err := ssh.ParseRawPrivateKey(raw)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	if a.dir == "" {
		dir, err := os.MkdirTemp("", "manifestctl-ssh-") // 0700
		if err != nil {
			return err
		}
		a.dir = dir
	}
	name := make([]byte, 4)
	if _, err := rand.Read(name); err != nil {
		return err
	}
	socket := filepath.Join(a.dir, hex.EncodeToString(name))
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	a.sockets[id] = socket
	a.closing = append(a.closing, l)
	a.serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			a.serving.Go(func() {
				_ = agent.ServeAgent(readOnly{ring}, c) // ends when the client does
				_ = c.Close()
			})
		}
	})
	return nil
}

// readOnly is an agent whose clients may sign, and not change it.
type readOnly struct{ agent.Agent }

var errReadOnly = errors.New("the agent cannot be changed")

func (readOnly) Add(agent.AddedKey) error   { return errReadOnly }
func (readOnly) Remove(ssh.PublicKey) error { return errReadOnly }
func (readOnly) RemoveAll() error           { return errReadOnly }
func (readOnly) Lock([]byte) error          { return errReadOnly }
func (readOnly) Unlock([]byte) error        { return errReadOnly }

// socket implements the worker's question.
func (a *agents) socket(id string) (string, bool) {
	if a == nil {
		return "", false
	}
	if id == "" {
		id = "default"
	}
	s, ok := a.sockets[id]
	return s, ok
}

func (a *agents) close() error {
	if a == nil {
		return nil
	}
	var errs []error
	for _, l := range a.closing {
		errs = append(errs, l.Close())
	}
	if a.dir != "" {
		errs = append(errs, os.RemoveAll(a.dir))
	}
	return errors.Join(errs...)
}
