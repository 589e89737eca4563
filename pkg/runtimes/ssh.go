package runtimes

import (
	"io"
	"net"
	"net/url"
	"os/exec"
	"time"
)

// dialSSH connects to an engine as docker's command does: by `docker system dial-stdio` on the other machine.
func dialSSH(ssh string, u *url.URL) (net.Conn, error) {
	args := []string{"-o", "ConnectTimeout=10", "-T"}
	if name := u.User.Username(); name != "" {
		args = append(args, "-l", name)
	}
	if port := u.Port(); port != "" {
		args = append(args, "-p", port)
	}
	cmd := exec.Command(ssh, append(args, "--", u.Hostname(), "docker", "system", "dial-stdio")...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &commandConn{Reader: out, WriteCloser: in, cmd: cmd}, nil
}

// commandConn is a connection over the standard streams of a command. Deadlines do nothing: contexts end requests.
type commandConn struct {
	io.Reader
	io.WriteCloser
	cmd *exec.Cmd
}

var _ net.Conn = (*commandConn)(nil)

// Close implements net.Conn.
func (c *commandConn) Close() error {
	err := c.WriteCloser.Close()
	_ = c.cmd.Process.Kill() // it may have ended
	_ = c.cmd.Wait()         // says that it was killed
	return err
}

type commandAddr struct{}

func (commandAddr) Network() string { return "command" }
func (commandAddr) String() string  { return "ssh" }

// LocalAddr implements net.Conn.
func (*commandConn) LocalAddr() net.Addr { return commandAddr{} }

// RemoteAddr implements net.Conn.
func (*commandConn) RemoteAddr() net.Addr { return commandAddr{} }

// SetDeadline implements net.Conn.
func (*commandConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (*commandConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (*commandConn) SetWriteDeadline(time.Time) error { return nil }
