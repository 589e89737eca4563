// Command agent is the program of agents in tests of what a step can do to it. Run as anything else it is the program of
// a step that was made to execute it: it opens itself, and executes the probe, which tries to write to what was opened.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/sandbox"
)

func main() {
	sandbox.Main()
	fd, err := unix.Open("/proc/self/exe", unix.O_PATH, 0)
	if err == nil {
		err = unix.Exec("/bin/probe", []string{"probe", "overwrite", fmt.Sprintf("/proc/self/fd/%d", fd)}, os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
