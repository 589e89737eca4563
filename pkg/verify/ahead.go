package verify

import "io"

const (
	aheadSize  = 256 << 10
	aheadCount = 4
)

// ahead reads on a goroutine of its own, a few buffers ahead of whoever reads it: hashing and unpacking of a layer
// go on while what came before is looked at. Close waits for the goroutine, and must come before r is closed.
type ahead struct {
	full  chan chunk
	empty chan []byte
	stop  chan struct{}
	done  chan struct{}
	cur   chunk
	rest  []byte
}

type chunk struct {
	b   []byte
	err error
}

func newAhead(r io.Reader) *ahead {
	a := &ahead{full: make(chan chunk, aheadCount), empty: make(chan []byte, aheadCount), stop: make(chan struct{}), done: make(chan struct{})}
	for range aheadCount {
		a.empty <- make([]byte, aheadSize)
	}
	go func() {
		defer close(a.done)
		for {
			select {
			case <-a.stop:
				return
			case buf := <-a.empty:
				n, err := fill(r, buf)
				a.full <- chunk{buf[:n], err} // there is room: it has as many places as there are buffers
				if err != nil {
					return
				}
			}
		}
	}()
	return a
}

// fill is io.ReadFull that keeps what r says.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var k int
		k, err = r.Read(buf[n:])
		n += k
	}
	return n, err
}

// Read implements io.Reader.
func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.cur.err != nil {
			return 0, a.cur.err
		}
		if a.cur.b != nil {
			a.empty <- a.cur.b[:aheadSize]
		}
		a.cur = <-a.full
		a.rest = a.cur.b
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Close ends the reading.
func (a *ahead) Close() error {
	close(a.stop)
	<-a.done
	return nil
}
