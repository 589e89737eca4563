package local

import (
	"errors"
	"fmt"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
)

// codeSegv is how a shell reports a child that died of SIGSEGV.
const codeSegv = 128 + 11

// underEmulation adds to the failure of a step of another machine what is known of such failures: a program that is sound
// dies of SIGSEGV when its emulator is not.
func underEmulation(err error, p platform.Platform) error {
	var exit *sandbox.ExitError
	m := emulate.Machine()
	if !errors.As(err, &exit) || exit.Code != codeSegv || p.Arch == m.Arch || p.Arch == "" {
		return err
	}
	return fmt.Errorf("%w: a program of %s died of SIGSEGV under emulation, which may be the emulator's fault: try another version of qemu "+
		"(`manifestctl emulate install --from REF|FILE`, or --emulator %s=PATH), or build this platform on a machine of its own", err, p, p.Arch)
}
