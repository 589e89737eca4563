// Command hello says which machine it runs on, as the kernel tells it, and starts
// itself as a child to show that a child of a foreign architecture runs as well.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "report" {
		if err := report(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "hello:", err)
			os.Exit(1)
		}
		return
	}
	machine, err := machine()
	if err != nil {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
	greeting := "hello"
	if b, err := os.ReadFile("/etc/hello.conf"); err == nil {
		greeting = strings.TrimSpace(strings.TrimPrefix(string(b), "greeting="))
	}
	fmt.Printf("%s from %s\n", greeting, machine)
}

// report writes what uname says to dir/parent, and what a child of this program prints to dir/child.
func report(dir string) error {
	machine, err := machine()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	out, err := exec.Command(self).Output()
	if err != nil {
		return fmt.Errorf("starting %s: %w", self, err)
	}
	if err := os.WriteFile(dir+"/parent", []byte(machine+"\n"), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(dir+"/child", out, 0o644); err != nil {
		return err
	}
	fmt.Printf("%s: child says %s", machine, out)
	return nil
}

// machine is the kernel's name of the machine: what uname -m prints.
func machine() (string, error) {
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		return "", fmt.Errorf("uname: %w", err)
	}
	var b strings.Builder
	for _, c := range u.Machine {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	return b.String(), nil
}
