package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// proxyEnv makes this program the proxy that its arguments describe. It is a process of its own: what a child's peak of
// memory is said to be is never below that of the process that started it.
const proxyEnv = "MANIFESTCTL_BENCH_PROXY"

// runProxy is `[-delay D] [-rate BYTES] HOST:PORT`: it passes requests on to HOST:PORT, each after a delay, with so many
// bytes a second on each connection of a client. It prints where it listens, and for each line of its input how many
// requests there were.
func runProxy(args []string) error {
	f := flag.NewFlagSet("proxy", flag.ContinueOnError)
	delay := f.Duration("delay", 0, "")
	rate := f.Int64("rate", 0, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	to := &url.URL{Scheme: "http", Host: f.Arg(0)}
	var requests atomic.Int64
	proxy := &httputil.ReverseProxy{
		// The Host stays, so that a Location leads through here again.
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host },
		Transport:     &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true, WriteBufferSize: 128 << 10, ReadBufferSize: 128 << 10},
		FlushInterval: -1,
		BufferPool:    buffers{},
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if *rate > 0 {
		l = limitedListener{l, *rate}
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if *delay > 0 {
			time.Sleep(*delay)
		}
		proxy.ServeHTTP(w, r)
	})}
	go func() { _ = srv.Serve(l) }()
	fmt.Println(l.Addr())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(requests.Load())
	}
	return srv.Close()
}

// buffers is a httputil.BufferPool.
type buffers struct{}

// bufferSize is a buffer's size in bytes.
const bufferSize = 256 << 10

var bufferPool = sync.Pool{New: func() any { return new([bufferSize]byte) }}

func (buffers) Get() []byte { return bufferPool.Get().(*[bufferSize]byte)[:] }

func (buffers) Put(b []byte) {
	if len(b) == bufferSize {
		bufferPool.Put((*[bufferSize]byte)(b))
	}
}

// limitedListener limits each connection, each way.
type limitedListener struct {
	net.Listener
	rate int64
}

func (l limitedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &limitedConn{Conn: c, in: pace{rate: l.rate}, out: pace{rate: l.rate}}, nil
}

type limitedConn struct {
	net.Conn
	in, out pace
}

// atOnce is how much passes between two looks at the clock.
const atOnce = 64 << 10

func (c *limitedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:min(len(p), atOnce)])
	c.in.wait(n)
	return n, err
}

func (c *limitedConn) Write(p []byte) (total int, err error) {
	for len(p) > 0 && err == nil {
		var n int
		n, err = c.Conn.Write(p[:min(len(p), atOnce)])
		c.out.wait(n)
		total += n
		p = p[n:]
	}
	return total, err
}

// pace lets so many bytes a second pass; a pause saves up nothing.
type pace struct {
	rate int64
	next time.Time // when the next byte may pass
}

func (p *pace) wait(n int) {
	if n <= 0 {
		return
	}
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(int64(n) * int64(time.Second) / p.rate))
	if ahead := p.next.Sub(now); ahead > 2*time.Millisecond { // a sleep is never shorter
		time.Sleep(ahead)
	}
}

// proxy is a running one.
type proxy struct {
	addr string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

func startProxy(args ...string) (*proxy, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &proxy{cmd: exec.Command(self, args...)}
	p.cmd.Env = append(os.Environ(), proxyEnv+"=1")
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	line, err := p.out.ReadString('\n')
	p.addr = strings.TrimSpace(line)
	return p, err
}

// count is how many requests there were.
func (p *proxy) count() (int64, error) {
	if _, err := io.WriteString(p.in, "\n"); err != nil {
		return 0, err
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(line), 10, 64)
}

func (p *proxy) stop() {
	_ = p.in.Close()
	_ = p.cmd.Wait()
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// reachable waits until a server answers.
func reachable(addr string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/v2/", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			return resp.Body.Close()
		}
		if ctx.Err() != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}
