package registry_test

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testregistry"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// closing stands before a registry and gives it all connections but the n after its first POST. Each of those ends
// without a look at the request: GOAWAY with the last stream 0, once a body has begun.
func closing(t *testing.T, to *fake, n int32) (addr string, closed *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	ca, err := testregistry.NewAuthority("closing")
	require.NoError(t, err)
	config, err := ca.ServerConfig("127.0.0.1")
	require.NoError(t, err)
	config.NextProtos = []string{"h2"}
	closed = new(atomic.Int32)
	go func() {
		for i := int32(0); ; {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if i == n || len(to.Of("POST", testregistry.Uploads)) == 0 {
				go tunnel(c, to.host)
				continue
			}
			i++
			go func() {
				defer c.Close()
				_ = goAway(tls.Server(c, config), closed)
			}()
		}
	}()
	return l.Addr().String(), closed
}

func tunnel(c net.Conn, to string) {
	defer c.Close()
	s, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer s.Close()
	go func() {
		_, _ = io.Copy(s, c)
		_ = s.Close()
	}()
	_, _ = io.Copy(c, s)
}

// goAway speaks as much HTTP/2 as it takes (RFC 9113, sections 3.4, 4.1, 6.5 and 6.8). It counts before it answers: what
// the other side does after the answer is then ordered behind the count.
func goAway(c net.Conn, closed *atomic.Int32) error {
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	const preface = len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	if _, err := io.CopyN(io.Discard, c, int64(preface)); err != nil {
		return err
	}
	if _, err := c.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}); err != nil { // SETTINGS
		return err
	}
	for {
		var head [9]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return err
		}
		size := int64(binary.BigEndian.Uint32(head[:4]) >> 8)
		if _, err := io.CopyN(io.Discard, c, size); err != nil {
			return err
		}
		if head[3] == 0 && size > 0 { // DATA
			closed.Add(1)
			if _, err := c.Write([]byte{0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}); err != nil { // GOAWAY
				return err
			}
			_, _ = io.Copy(io.Discard, c) // closed by the other side, which has read it then
			return nil
		}
	}
}

// TestPushBlob_C28_untouched: a connection that closes before a request was looked at costs none of its tries.
func TestPushBlob_C28_untouched(t *testing.T) {
	f := fakeOf(testregistry.New(t, testregistry.Options{TLS: &tls.Config{}, HTTP2: true}))
	f.When("POST", testregistry.Uploads, 1, testregistry.Headers("Connection", "close"))
	const n = 12
	addr, closed := closing(t, f, n)
	desc, b := randomBlob(t, 200<<10)
	_, err := client(registry.Options{Insecure: everywhere}).PushBlob(t.Context(), mustParse(t, addr+"/app:1"), desc, opener(b), nil)
	require.NoError(t, err)
	assert.True(t, f.holds("app", b))
	assert.Equal(t, int32(n), closed.Load())
	assert.Len(t, f.Of("PUT", testregistry.Uploads), 1)
}
