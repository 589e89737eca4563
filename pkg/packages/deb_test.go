package packages

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// ar makes an archive of "name=content" members.
func ar(members ...string) string {
	var b strings.Builder
	b.WriteString(arMagic)
	for _, m := range members {
		name, data, _ := strings.Cut(m, "=")
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n%s", name, 0, 0, 0, 0o100644, len(data), data)
		if len(data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func TestDebData(t *testing.T) {
	good := ar("debian-binary=2.0\n", "control.tar.xz=abc", "data.tar.xz=the data")
	for name, tc := range map[string]struct{ in, want string }{
		"dpkg's":               {good, "the data"},
		"names with a slash":   {ar("debian-binary/=2.0\n", "data.tar=x", "more=y"), "x"},
		"empty":                {"", ""},
		"no archive":           {"hello, world", ""},
		"another archive":      {ar("hello.o=x"), ""},
		"no data":              {ar("debian-binary=2.0\n", "control.tar=x"), ""},
		"cut in a header":      {good[:len(good)-len("the data")-3], ""},
		"cut before the data":  {good[:len(arMagic)+arHeader+2], ""},
		"a size that is none":  {strings.Replace(good, "4         `", "x         `", 1), ""},
		"a size below nothing": {strings.Replace(good, "4         `", "-4        `", 1), ""},
		"too many members":     {ar(append([]string{"debian-binary=2.0\n"}, strings.Split(strings.Repeat("x=y ", 20)+"data.tar=z", " ")...)...), ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := DebData(strings.NewReader(tc.in))
			if tc.want == "" {
				require.ErrorIs(t, err, ErrDeb)
				return
			}
			require.NoError(t, err)
			got, err := io.ReadAll(r)
			require.NoError(t, err)
			assert.Equal(t, tc.want, string(got))
		})
	}
	r, err := DebData(strings.NewReader(good[:len(good)-2]))
	require.NoError(t, err)
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	assert.True(t, IsDeb([]byte(good)))
	assert.False(t, IsDeb(nil))
}

func FuzzDebData(f *testing.F) {
	f.Add([]byte(ar("debian-binary=2.0\n", "control.tar.xz=abc", "data.tar.xz=the data")))
	f.Add([]byte(ar("debian-binary=2.0\n")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := DebData(bytes.NewReader(in))
		if err != nil {
			return
		}
		got, err := io.ReadAll(r)
		if err == nil && !bytes.Contains(in, got) {
			t.Errorf("bytes that are not in it: %q", got)
		}
	})
}
