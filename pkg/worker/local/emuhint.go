package local

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
)

// codeSegv is how a shell reports a child that died of SIGSEGV.
const codeSegv = 128 + 11

// emulated watches a step of another machine: a program that is sound dies of SIGSEGV when its emulator is not, and who
// started it often says no more than that it failed.
type emulated struct {
	platform platform.Platform
	crashed  []*crashWatch
}

// watch puts itself between a step of p and its outputs. It does nothing for this machine's own programs.
func watch(step *sandbox.Step, p platform.Platform) *emulated {
	e := &emulated{platform: p}
	if p.Arch == emulate.Machine().Arch || p.Arch == "" {
		return e
	}
	for _, w := range []*io.Writer{&step.Stdout, &step.Stderr} {
		if *w == nil {
			continue
		}
		c := &crashWatch{w: *w}
		e.crashed = append(e.crashed, c)
		*w = c
	}
	return e
}

// explain adds to the failure of the step, which has ended, what is known of such failures.
func (e *emulated) explain(err error) error {
	var exit *sandbox.ExitError
	if !errors.As(err, &exit) || e.platform.Arch == emulate.Machine().Arch || e.platform.Arch == "" {
		return err
	}
	crashed := exit.Code == codeSegv
	for _, c := range e.crashed {
		crashed = crashed || c.seen
	}
	if !crashed {
		return err
	}
	return fmt.Errorf("%w: a program of %s died of SIGSEGV under emulation, which may be the emulator's fault: try another version of qemu "+
		"(`manifestctl emulate install --from REF|FILE`, or --emulator %s=PATH), or build this platform on a machine of its own",
		err, e.platform, e.platform.Arch)
}

// crashMarks are what qemu's user mode says when the program it runs, or it itself, dies of SIGSEGV
// (linux-user/signal.c, accel/tcg/user-exec.c).
var crashMarks = [][]byte{[]byte("qemu: uncaught target signal 11"), []byte("QEMU internal SIGSEGV")}

// crashWatch passes everything on and notes whether a mark was in it.
type crashWatch struct {
	w    io.Writer
	tail []byte // the end of what came before, shorter than a mark
	seen bool
}

func (c *crashWatch) Write(p []byte) (int, error) {
	if !c.seen {
		text := append(c.tail, p...)
		for _, m := range crashMarks {
			c.seen = c.seen || bytes.Contains(text, m)
		}
		keep := min(len(text), len(crashMarks[0])-1)
		c.tail = append([]byte(nil), text[len(text)-keep:]...)
	}
	return c.w.Write(p)
}
