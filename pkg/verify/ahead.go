package verify

import (
	"errors"
	"io"
	"sync/atomic"
)

const (
	aheadSize  = 256 << 10
	aheadCount = 6
)

// bare is a blob that verifies itself, taken apart: raw reads what it has, and check is to be given all of that, in order and with
// what the reads said. It says what a Read of the blob would have said, the verdict in place of the last io.EOF.
type bare interface {
	Bare() (raw io.Reader, check func(p []byte, err error) error)
}

// ahead reads on a goroutine of its own, a few buffers ahead of whoever reads it: hashing and unpacking of a layer
// go on while what came before is looked at. With check the same buffers are hashed on a third one. An error, io.EOF too, comes
// only after the check of everything before it. close waits for the goroutines, and must come before r is closed.
type ahead struct {
	full    chan *chunk
	unseen  chan *chunk // what check has not seen; nil: there is none
	empty   chan *chunk
	stop    chan struct{}
	done    chan struct{} // r is not read any more
	checked chan struct{}
	wrong   error // what check said, once checked
	cur     *chunk
	rest    []byte
	err     error // what every further Read returns
}

type chunk struct {
	b     []byte
	err   error
	users atomic.Int32
}

func newAhead(r io.Reader, check func(p []byte, err error) error) *ahead {
	a := &ahead{
		full: make(chan *chunk, aheadCount), empty: make(chan *chunk, aheadCount),
		stop: make(chan struct{}), done: make(chan struct{}), checked: make(chan struct{}),
	}
	for range aheadCount {
		a.empty <- &chunk{b: make([]byte, aheadSize)}
	}
	users := int32(1)
	if check == nil {
		close(a.checked)
	} else {
		users, a.unseen = 2, make(chan *chunk, aheadCount)
		go a.check(check)
	}
	go a.read(r, users)
	return a
}

// read fills buffers. Every channel has as many places as there are buffers.
func (a *ahead) read(r io.Reader, users int32) {
	defer close(a.done)
	if a.unseen != nil {
		defer close(a.unseen)
	}
	for {
		select {
		case <-a.stop:
			return
		case c := <-a.empty:
			n, err := fill(r, c.b[:aheadSize])
			c.b, c.err = c.b[:n], err
			c.users.Store(users)
			if a.unseen != nil {
				a.unseen <- c
			}
			a.full <- c
			if err != nil {
				return
			}
		}
	}
}

// check hashes buffers. After an error the rest is of no interest.
func (a *ahead) check(check func([]byte, error) error) {
	defer close(a.checked)
	for c := range a.unseen {
		if a.wrong == nil {
			a.wrong = check(c.b, c.err)
		}
		a.used(c)
	}
}

// used gives a buffer back that one of its users does not need any more.
func (a *ahead) used(c *chunk) {
	if c.users.Add(-1) == 0 {
		a.empty <- c
	}
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
		if a.err != nil {
			return 0, a.err
		}
		if a.cur != nil {
			if err := a.cur.err; err != nil {
				a.err = a.verdict(err)
				continue
			}
			a.used(a.cur)
		}
		a.cur = <-a.full
		a.rest = a.cur.b
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// verdict is what to say in place of the last read's error.
func (a *ahead) verdict(err error) error {
	<-a.checked
	if a.wrong != nil {
		return a.wrong
	}
	if a.unseen != nil && errors.Is(err, io.EOF) {
		return errors.New("the end of a blob was not checked")
	}
	return err
}

// close ends the reading.
func (a *ahead) close() {
	close(a.stop)
	<-a.done
	<-a.checked
}
