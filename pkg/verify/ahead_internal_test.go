package verify

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// believing is a check that finds nothing wrong.
func believing(_ []byte, err error) error { return err }

func TestAhead(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 300_000)
	for name, check := range map[string]func([]byte, error) error{"read": nil, "read and checked": believing} {
		t.Run(name, func(t *testing.T) {
			a := newAhead(iotest.HalfReader(bytes.NewReader(data)), check)
			got, err := io.ReadAll(a)
			require.NoError(t, err)
			a.close()
			assert.True(t, bytes.Equal(data, got))

			cause := errors.New("cut")
			a = newAhead(io.MultiReader(bytes.NewReader(data[:1000]), iotest.ErrReader(cause)), check)
			got, err = io.ReadAll(a)
			require.ErrorIs(t, err, cause)
			assert.Len(t, got, 1000, "what came before the error")
			_, err = a.Read(make([]byte, 1))
			require.ErrorIs(t, err, cause, "and it stays")
			a.close()

			// Whoever stops early does not leave the goroutines behind.
			a = newAhead(bytes.NewReader(data), check)
			_, err = io.ReadFull(a, make([]byte, 10))
			require.NoError(t, err)
			a.close()
		})
	}
}

// TestAhead_verdict: nobody sees the end of what was not checked to its end, however long that takes.
func TestAhead_verdict(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 300_000)
	cause := errors.New("another digest")
	for name, tc := range map[string]struct {
		fail int // at which byte; negative: never
		end  error
	}{
		"right": {-1, nil}, "wrong at the start": {0, cause}, "wrong in the middle": {len(data) / 2, cause}, "wrong at the end": {len(data), cause},
	} {
		t.Run(name, func(t *testing.T) {
			var seen atomic.Int64
			var hashed bytes.Buffer
			a := newAhead(bytes.NewReader(data), func(p []byte, err error) error {
				time.Sleep(time.Millisecond) // the reader is ahead
				hashed.Write(p)
				n := seen.Add(int64(len(p)))
				if tc.fail >= 0 && n >= int64(tc.fail) && (err != nil || tc.fail < len(data)) {
					return cause
				}
				return err
			})
			got, err := io.ReadAll(a)
			require.ErrorIs(t, err, tc.end)
			assert.True(t, bytes.Equal(data, got))
			if tc.fail < 0 {
				assert.Equal(t, int64(len(data)), seen.Load(), "all was checked before the end was seen")
				assert.True(t, bytes.Equal(data, hashed.Bytes()), "in order, and nothing else")
			}
			a.close()
		})
	}
	a := newAhead(bytes.NewReader(data), func([]byte, error) error { return nil })
	_, err := io.ReadAll(a)
	require.Error(t, err, "a check that gives no verdict")
	a.close()
}
