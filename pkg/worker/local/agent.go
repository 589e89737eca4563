package local

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/manifestctl/manifestctl/pkg/graph"
)

// ErrSSH is the kind of "a step needs an ssh agent that was not given".
var ErrSSH = errors.New("missing ssh agent")

// defaultAgent is the agent of a mount that names none.
const defaultAgent = "default"

// agentSocket makes the socket of a mount; "" when the agent was not given and need not be.
func (w *Worker) agentSocket(m graph.Mount) (path string, closeSocket func(), err error) {
	id := cmp.Or(m.ID, defaultAgent)
	up, ok := w.agent(id)
	if !ok {
		if m.Required {
			return "", nil, fmt.Errorf("%w %q: give it with --ssh %s", ErrSSH, id, id)
		}
		return "", nil, nil
	}
	dir, err := w.scratch()
	if err != nil {
		return "", nil, err
	}
	mode := os.FileMode(0o600)
	if m.Mode != nil {
		mode = os.FileMode(*m.Mode & 0o777)
	}
	return serveAgent(up, dir, mode)
}

func (w *Worker) agent(id string) (socket string, ok bool) {
	if w.o.SSH == nil {
		return "", false
	}
	return w.o.SSH(id)
}

// serveAgent listens on a socket in dir and answers with the agent at up until it is closed.
func serveAgent(up, dir string, mode os.FileMode) (string, func(), error) {
	path := filepath.Join(dir, "agent")
	l, err := listenShort(path)
	if err != nil {
		return "", nil, fmt.Errorf("making the socket of an ssh agent: %w", err)
	}
	if err := os.Chmod(path, mode); err != nil {
		return "", nil, errors.Join(err, l.Close())
	}
	s := &agentServer{listener: l, up: up, open: map[net.Conn]bool{}}
	s.wait.Go(s.accept)
	return path, s.close, nil
}

// listenShort listens on a path that may be longer than an address of a socket can be.
func listenShort(path string) (net.Listener, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // it goes with its directory
	return l, nil
}

type agentServer struct {
	listener net.Listener
	up       string // socket of the agent
	wait     sync.WaitGroup

	mu   sync.Mutex // guards open and done
	open map[net.Conn]bool
	done bool
}

func (s *agentServer) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		if s.hold(c) {
			s.wait.Go(func() {
				s.serve(c)
				s.drop(c)
			})
		}
	}
}

// serve answers one connection. A step may list keys and sign, and nothing else.
func (s *agentServer) serve(c net.Conn) {
	up, err := net.Dial("unix", s.up)
	if err != nil {
		return
	}
	defer up.Close()
	_ = agent.ServeAgent(signer{agent.NewClient(up)}, c) // its end is the end of the connection
}

func (s *agentServer) hold(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		_ = c.Close()
		return false
	}
	s.open[c] = true
	return true
}

func (s *agentServer) drop(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	_ = c.Close()
}

func (s *agentServer) close() {
	_ = s.listener.Close()
	s.mu.Lock()
	s.done = true
	for c := range s.open {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wait.Wait()
}

var errReadOnly = errors.New("the agent of a build only lists keys and signs")

// signer is an agent whose keys cannot be changed.
type signer struct{ agent.ExtendedAgent }

func (signer) Add(agent.AddedKey) error       { return errReadOnly }
func (signer) Remove(ssh.PublicKey) error     { return errReadOnly }
func (signer) RemoveAll() error               { return errReadOnly }
func (signer) Lock([]byte) error              { return errReadOnly }
func (signer) Unlock([]byte) error            { return errReadOnly }
func (signer) Signers() ([]ssh.Signer, error) { return nil, errReadOnly }

// Extension implements agent.ExtendedAgent: none is known.
func (signer) Extension(string, []byte) ([]byte, error) { return nil, agent.ErrExtensionUnsupported }

var _ agent.ExtendedAgent = signer{}
