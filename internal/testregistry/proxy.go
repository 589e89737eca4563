package testregistry

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy passes TCP connections on, and spoils them. The zero value is a wire.
type Proxy struct {
	Latency time.Duration // before each piece that comes back after one that went out
	Rate    int64         // bytes a second of each connection, each way; 0: no limit

	limits sync.Mutex
	cutAt  []int64 // of the connections to come
	refuse atomic.Bool
	silent atomic.Bool

	cuts, conns atomic.Int32
}

// CutAt resets the next connections after so many bytes, both ways together: the first after the first number, and so on.
func (p *Proxy) CutAt(bytes ...int64) {
	p.limits.Lock()
	defer p.limits.Unlock()
	p.cutAt = append(p.cutAt, bytes...)
}

// Refuse makes it close new connections at once.
func (p *Proxy) Refuse(on bool) { p.refuse.Store(on) }

// Silence makes it take everything in and pass nothing on.
func (p *Proxy) Silence(on bool) { p.silent.Store(on) }

// Cuts is how many connections were cut, Connections how many were made.
func (p *Proxy) Cuts() int { return int(p.cuts.Load()) }

// Connections is how many were made.
func (p *Proxy) Connections() int { return int(p.conns.Load()) }

// Start listens until the test ends, and returns HOST:PORT.
func (p *Proxy) Start(tb testing.TB, target string) string {
	tb.Helper()
	return p.start(tb, "tcp", target)
}

func (p *Proxy) start(tb testing.TB, network, target string) string {
	tb.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("listening: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	tb.Cleanup(func() { stop(); _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			down, err := l.Accept()
			if err != nil {
				return
			}
			p.conns.Add(1)
			var d net.Dialer
			up, err := d.DialContext(ctx, network, target)
			if err != nil || p.refuse.Load() {
				_ = down.Close()
				if up != nil {
					_ = up.Close()
				}
				continue
			}
			wg.Go(func() { p.pipe(ctx, down, up) })
		}
	})
	return l.Addr().String()
}

func (p *Proxy) next() int64 {
	p.limits.Lock()
	defer p.limits.Unlock()
	if len(p.cutAt) == 0 {
		return 1 << 62
	}
	n := p.cutAt[0]
	p.cutAt = p.cutAt[1:]
	return n
}

func (p *Proxy) pipe(ctx context.Context, down, up net.Conn) {
	var left atomic.Int64
	left.Store(p.next())
	var asked atomic.Bool // something went up since the last that came down
	var once sync.Once
	end := func() { _ = down.Close(); _ = up.Close() }
	defer context.AfterFunc(ctx, end)()
	move := func(to, from net.Conn, back bool) {
		defer end()
		buf := make([]byte, 16<<10)
		for {
			n, err := from.Read(buf)
			if rest := left.Add(int64(-n)); rest < 0 {
				once.Do(func() { p.cuts.Add(1) })
				for _, c := range []net.Conn{down, up} {
					if c, ok := c.(*net.TCPConn); ok {
						_ = c.SetLinger(0) // a reset, not an end
					}
				}
				return
			}
			if n > 0 && !p.silent.Load() {
				if !back {
					asked.Store(true)
				} else if asked.Swap(false) && p.Latency > 0 {
					time.Sleep(p.Latency)
				}
				if p.Rate > 0 {
					time.Sleep(time.Duration(n) * time.Second / time.Duration(p.Rate))
				}
				if _, err := to.Write(buf[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { move(up, down, false) })
	move(down, up, true)
	wg.Wait()
}
