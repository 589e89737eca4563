package local

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
)

func TestCrashHint(t *testing.T) {
	foreign := platform.Platform{OS: "linux", Arch: "s390x"}
	if emulate.Machine().Arch == foreign.Arch {
		foreign.Arch = "arm64"
	}
	const said = "dpkg: error\nqemu: uncaught target signal 11 (Segmentation fault) - core dumped\n"
	for name, tc := range map[string]struct {
		p    platform.Platform
		out  string
		code int
		want bool
	}{
		"the step itself":            {p: foreign, code: 139, want: true},
		"a child, as qemu says it":   {p: foreign, out: said, code: 100, want: true},
		"qemu itself":                {p: foreign, out: "x QEMU internal SIGSEGV {code=MAPERR, addr=0x20}\n", code: 1, want: true},
		"another failure":            {p: foreign, out: "segmentation fault\n", code: 1},
		"this machine's own program": {p: emulate.Machine(), out: said, code: 139},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			step := sandbox.Step{Stderr: &out}
			e := watch(&step, tc.p)
			for b := range strings.SplitSeq(tc.out, "") { // in the smallest pieces
				_, err := io.WriteString(step.Stderr, b)
				require.NoError(t, err)
			}
			assert.Equal(t, tc.out, out.String())
			cause := &sandbox.ExitError{Code: tc.code}
			err := e.explain(cause)
			require.ErrorIs(t, err, cause)
			assert.Equal(t, tc.want, strings.Contains(err.Error(), "--emulator "+tc.p.Arch+"=PATH"), err.Error())
			require.NoError(t, e.explain(nil))
			require.ErrorIs(t, e.explain(os.ErrClosed), os.ErrClosed)
		})
	}
}
