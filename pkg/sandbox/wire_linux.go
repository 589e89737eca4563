package sandbox

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// The operations of a request.
const (
	opHello  = "hello"
	opRun    = "run"
	opUnpack = "unpack"
	opRemove = "remove"
	opProbe  = "probe"
)

// request is what an agent is asked to do. On the wire: length (4 bytes, little endian), gob (JSON would change
// arguments that are not UTF-8); descriptors come with the first byte.
type request struct {
	Op     string
	Dir    string       // unpack, remove, probe
	Limits layer.Limits // unpack
	Hello  *hello
	Step   *wireStep
}

// hello is the first request: how the agent is to be set up.
type hello struct {
	Mode      Mode
	Recorded  bool     // owners are recorded, because root may give files to nobody
	Handlers  []string // lines for register
	Emulators []emulator
	Emulation emulate.Mode
	MapSize   int64    // ids 0..MapSize-1 are mapped
	Keep      []string // in place: names of the root that stay
}

// wireStep is a Step without its writers. Which of them exist is told by the booleans; their descriptors come in this order.
type wireStep struct {
	Lowers     []string
	Tree       string
	Scratch    string
	Args       []string
	Env        []string
	Cwd        string
	Account    layer.Account
	HostNet    bool
	Hostname   string
	Hosts      []Host
	Mounts     []Mount
	Limits     Rlimits
	Ulimits    []Ulimit
	ReadOnly   bool
	Insecure   bool
	OKCodes    []int
	Stdout     bool
	Stderr     bool
	Diff       bool
	Stdin      bool
	Control    bool // a socket: signals come, the terminal goes
	Terminal   bool
	Cgroup     bool // the last descriptor: cgroup.procs of the step's
	Resources  Resources
	KeepFailed bool
	Clamp      *time.Time
	Keep       string
	Ownership  layer.Ownership
}

// reply is the answer to a request. Err is nil when it was done; Exit says how a step's process ended when not with 0.
type reply struct {
	Err        *wireError
	Exit       *ExitError
	Emulation  *wireError // hello
	How        emulate.How
	Supervisor *wireError // hello: why owners cannot be kept with a single uid
	Rungs      []Rung     // probe

	fatal error // the agent cannot go on
}

// wireError carries an error's text and its kinds through the socket.
type wireError struct {
	Text  string
	Kinds []string
	Errno syscall.Errno
}

// kinds are the sentinels that survive the way from the agent.
var kinds = map[string]error{
	"host":      ErrHost,
	"ownership": ErrOwnership,
	"rootfs":    ErrRootfs,
	"emulator":  emulate.ErrNoEmulator,
	"notexist":  fs.ErrNotExist,
	"exist":     fs.ErrExist,
	"invalid":   layer.ErrInvalid,
	"unsafe":    layer.ErrUnsafe,
	"limit":     layer.ErrLimit,
	"type":      layer.ErrType,
	"target":    layer.ErrTarget,
	"changed":   layer.ErrChanged,
	"short":     io.ErrUnexpectedEOF,
}

func toWire(err error) *wireError {
	if err == nil {
		return nil
	}
	w := &wireError{Text: err.Error()}
	for name, kind := range kinds {
		if errors.Is(err, kind) {
			w.Kinds = append(w.Kinds, name)
		}
	}
	errors.As(err, &w.Errno)
	return w
}

func (w *wireError) err() error {
	if w == nil {
		return nil
	}
	e := &agentError{text: w.Text}
	for _, name := range w.Kinds {
		if kind, ok := kinds[name]; ok {
			e.causes = append(e.causes, kind)
		}
	}
	if w.Errno != 0 {
		e.causes = append(e.causes, w.Errno)
	}
	return e
}

// agentError is an error that happened in an agent.
type agentError struct {
	text   string
	causes []error
}

func (e *agentError) Error() string   { return e.text }
func (e *agentError) Unwrap() []error { return e.causes }

// maxMessage bounds a message; a step's secrets are the only thing that can be large.
const maxMessage = 64 << 20

var errMessage = errors.New("sandbox: message too large")

// codec is one side's two gob streams; types are sent once, with the first message.
type codec struct {
	in, out bytes.Buffer
	enc     *gob.Encoder
	dec     *gob.Decoder
}

func newCodec() *codec {
	c := &codec{}
	c.enc, c.dec = gob.NewEncoder(&c.out), gob.NewDecoder(&c.in)
	return c
}

// encode returns the framed message; it is valid until the next call.
func (c *codec) encode(v any) ([]byte, error) {
	c.out.Reset()
	c.out.Write(make([]byte, 4))
	if err := c.enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encoding a message: %w", err)
	}
	msg := c.out.Bytes()
	if len(msg) > maxMessage {
		return nil, errMessage
	}
	binary.LittleEndian.PutUint32(msg, uint32(len(msg)-4))
	return msg, nil
}

func (c *codec) decode(body []byte, v any) error {
	c.in.Write(body)
	if err := c.dec.Decode(v); err != nil {
		return fmt.Errorf("decoding a message: %w", err)
	}
	return nil
}

// check finds what no agent could do.
func (s *Step) check() error {
	switch {
	case len(s.Args) == 0 || s.Args[0] == "":
		return fmt.Errorf("running a step: %w: no command", fs.ErrInvalid)
	case s.Scratch == "":
		return fmt.Errorf("running a step: %w: no scratch directory", fs.ErrInvalid)
	case s.Resources.Memory < 0 || s.Resources.CPUs < 0 || s.Resources.PIDs < 0 || s.Resources.Disk < 0 || s.Resources.Timeout < 0:
		return fmt.Errorf("running a step: %w: a limit below zero", fs.ErrInvalid)
	case len(s.Lowers) > maxLowers:
		return fmt.Errorf("running a step: %w: %d layers, overlayfs takes %d", ErrHost, len(s.Lowers), maxLowers)
	}
	return nil
}

// wire converts the step; host paths become absolute, since agents have another working directory.
func (s *Step) wire() (*wireStep, error) {
	w := &wireStep{
		Args: s.Args, Env: s.Env, Cwd: s.Cwd, Account: s.Account, HostNet: s.HostNet, Hostname: s.Hostname, Hosts: s.Hosts,
		Limits: s.Limits, Ulimits: s.Ulimits, Resources: s.Resources, Terminal: s.Terminal, KeepFailed: s.KeepFailed, ReadOnly: s.ReadOnly, Insecure: s.Insecure, OKCodes: s.OKCodes, Stdout: s.Stdout != nil, Stderr: s.Stderr != nil, Diff: s.Diff != nil, Stdin: s.Stdin != nil, Clamp: s.Clamp,
	}
	var err error
	abs := func(path string) string {
		a, e := filepath.Abs(path)
		err = errors.Join(err, e)
		return a
	}
	w.Scratch = abs(s.Scratch)
	if s.Tree != "" {
		w.Tree = abs(s.Tree)
	}
	if s.Keep != "" {
		w.Keep = abs(s.Keep)
	}
	for _, l := range s.Lowers {
		w.Lowers = append(w.Lowers, abs(l))
	}
	for _, m := range s.Mounts {
		if m.Kind == MountDir || m.Kind == MountSocket || m.Kind == MountDevice {
			m.Source = abs(m.Source)
		}
		lowers := m.Lowers
		m.Lowers = nil
		for _, l := range lowers {
			m.Lowers = append(m.Lowers, abs(l))
		}
		w.Mounts = append(w.Mounts, m)
	}
	if err != nil {
		return nil, fmt.Errorf("running a step: %w", err)
	}
	return w, nil
}

// send writes a request and its descriptors; used by the parent.
func (c *codec) send(conn *net.UnixConn, req request, fds []int) error {
	msg, err := c.encode(req)
	if err != nil {
		return err
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	n, _, err := conn.WriteMsgUnix(msg, oob, nil)
	if err == nil && n < len(msg) {
		_, err = conn.Write(msg[n:])
	}
	return err
}

// await reads a reply; used by the parent.
func (c *codec) await(conn *net.UnixConn) (reply, error) {
	var head [4]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return reply{}, err
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size > maxMessage {
		return reply{}, errMessage
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(conn, body); err != nil {
		return reply{}, err
	}
	var r reply
	return r, c.decode(body, &r)
}

// errHungUp is the end of the socket: the parent is gone or wants the agent to end.
var errHungUp = errors.New("sandbox: hung up")

// readFull reads len(b) bytes of a blocking socket; used by the agent.
func readFull(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Read(fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return errHungUp
		}
		b = b[n:]
	}
	return nil
}

// receive reads a request and its descriptors; used by the agent.
func (c *codec) receive(fd int) (request, []int, error) {
	var head [4]byte
	oob := make([]byte, unix.CmsgSpace(16*4))
	n, oobn, _, _, err := unix.Recvmsg(fd, head[:], oob, unix.MSG_CMSG_CLOEXEC)
	for errors.Is(err, unix.EINTR) {
		n, oobn, _, _, err = unix.Recvmsg(fd, head[:], oob, unix.MSG_CMSG_CLOEXEC)
	}
	if err != nil {
		return request{}, nil, err
	}
	if n == 0 {
		return request{}, nil, errHungUp
	}
	fds, err := rights(oob[:oobn])
	if err != nil {
		return request{}, nil, err
	}
	if err := readFull(fd, head[n:]); err != nil {
		return request{}, fds, err
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size > maxMessage {
		return request{}, fds, errMessage
	}
	body := make([]byte, size)
	if err := readFull(fd, body); err != nil {
		return request{}, fds, err
	}
	var req request
	return req, fds, c.decode(body, &req)
}

// answer writes a reply; used by the agent.
func (c *codec) answer(fd int, r reply) error {
	msg, err := c.encode(r)
	if err != nil {
		return err
	}
	for len(msg) > 0 {
		n, err := unix.SendmsgN(fd, msg, nil, nil, unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		msg = msg[n:]
	}
	return nil
}
