// Command probe is what the executor's tests run inside a rootfs: each verb does one thing and prints what it saw.
// It is static and imports little, so that it compiles in a second for every architecture.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

func main() {
	runtime.LockOSThread() // some ids are a thread's
	args := os.Args[1:]
	if len(args) == 0 {
		args = []string{"true"}
	}
	code := 0
	for len(args) > 0 { // verbs separated by "--"
		var verb []string
		for len(args) > 0 && args[0] != "--" {
			verb, args = append(verb, args[0]), args[1:]
		}
		if len(args) > 0 {
			args = args[1:]
		}
		if err := do(verb[0], verb[1:]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", strings.Join(verb, " "), err)
			code = 1
		}
	}
	os.Exit(code)
}

func num(s string) int {
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		panic(err)
	}
	return int(n)
}

func do(verb string, a []string) error {
	switch verb {
	case "true":
		return nil
	case "exit":
		os.Exit(num(a[0]))
	case "echo":
		fmt.Println(strings.Join(a, " "))
	case "err":
		fmt.Fprintln(os.Stderr, strings.Join(a, " "))
	case "uname":
		var u syscall.Utsname
		if err := syscall.Uname(&u); err != nil {
			return err
		}
		fmt.Println(str(u.Machine[:]), runtime.GOARCH)
	case "id":
		groups, _ := os.Getgroups()
		sort.Ints(groups)
		fmt.Println(os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid(), groups)
	case "args":
		for _, x := range os.Args {
			fmt.Printf("%q\n", x)
		}
	case "env":
		for _, x := range os.Environ() {
			fmt.Printf("%q\n", x)
		}
	case "cwd":
		dir, err := os.Getwd()
		fmt.Println(dir)
		return err
	case "hostname":
		h, err := os.Hostname()
		fmt.Println(h)
		return err
	case "umask":
		m := syscall.Umask(0)
		fmt.Printf("%04o\n", m)
	case "nofile":
		var l syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
			return err
		}
		fmt.Println(l.Cur, l.Max)
	case "write":
		return os.WriteFile(a[0], []byte(strings.Join(a[1:], " ")), 0o644)
	case "append":
		f, err := os.OpenFile(a[0], os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteString(a[1])
		return err
	case "cat":
		for _, name := range a {
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			os.Stdout.Write(b)
		}
	case "copy": // stdin to stdout
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	case "ls":
		for _, dir := range a {
			es, err := os.ReadDir(dir)
			if err != nil {
				return err
			}
			for _, e := range es {
				fmt.Println(e.Name())
			}
		}
	case "stat":
		for _, name := range a {
			var st syscall.Stat_t
			if err := syscall.Lstat(name, &st); err != nil {
				return err
			}
			fmt.Printf("%s %o %d:%d %d %d\n", name, st.Mode, st.Uid, st.Gid, st.Size, uint64(st.Rdev))
		}
	case "fstat":
		f, err := os.Open(a[0])
		if err != nil {
			return err
		}
		defer f.Close()
		var st syscall.Stat_t
		if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
			return err
		}
		fmt.Printf("%s %o %d:%d %d %d\n", a[0], st.Mode, st.Uid, st.Gid, st.Size, uint64(st.Rdev))
	case "statx": // struct statx: uid at 20, gid at 24, mode at 28
		nr, ok := map[string]uintptr{"amd64": 332, "386": 383, "arm64": 291, "arm": 397, "riscv64": 291, "s390x": 379}[runtime.GOARCH]
		if !ok {
			return syscall.ENOSYS
		}
		var b [256]byte
		name := append([]byte(a[0]), 0)
		_, _, e := syscall.Syscall6(nr, ^uintptr(99), uintptr(unsafe.Pointer(&name[0])), 0x100, 0x7ff, uintptr(unsafe.Pointer(&b)), 0)
		if e != 0 {
			return e
		}
		fmt.Printf("%s %o %d:%d\n", a[0], *(*uint16)(unsafe.Pointer(&b[28])), *(*uint32)(unsafe.Pointer(&b[20])), *(*uint32)(unsafe.Pointer(&b[24])))
	case "tmpfile": // DIR NAME: a file without a name gets one
		fd, err := syscall.Open(a[0], 0o20000000|syscall.O_DIRECTORY|syscall.O_RDWR, 0o640)
		if err != nil {
			return err
		}
		return linkat(fmt.Sprint("/proc/self/fd/", fd), a[1])
	case "listxattr":
		b := make([]byte, 4096)
		n, err := syscall.Listxattr(a[0], b)
		fmt.Printf("%q\n", b[:max(n, 0)])
		return err
	case "chdir":
		return syscall.Chdir(a[0])
	case "mkfile": // any mode
		f, err := os.OpenFile(a[0], os.O_CREATE|os.O_EXCL|os.O_WRONLY, os.FileMode(num(a[1])))
		if err != nil {
			return err
		}
		return f.Close()
	case "setresuid":
		return syscall.Setresuid(num(a[0]), num(a[1]), num(a[2]))
	case "swap":
		return flip(a[0], a[1], true)
	case "flip": // swap two names for ever
		return flip(a[0], a[1], false)
	case "usleep":
		tv := syscall.NsecToTimeval(int64(num(a[0])) * 1000)
		syscall.Select(0, nil, nil, nil, &tv)
	case "walkproc": // look for a file of the host behind every link that /proc shows of others
		walkProc(a[0])
	case "keepcaps":
		return onAllThreads(syscall.SYS_PRCTL, 8, 1, 0)
	case "capset": // what a container has
		data := [6]uint32{0xa80425fb, 0xa80425fb}
		header := [2]uint32{0x20080522, 0}
		return onAllThreads(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
	case "setfsuid":
		return syscall.Setfsuid(num(a[0]))
	case "getres":
		r, e, s := getres(true)
		rg, eg, sg := getres(false)
		fmt.Println(r, e, s, rg, eg, sg)
	case "fork": // a double fork: the child's child runs the verbs after its parent is gone
		if len(a) > 1 && a[0] == "2" {
			return child(a[1:], true)
		}
		return child(append([]string{"fork", "2"}, a...), false)
	case "readlink":
		s, err := os.Readlink(a[0])
		fmt.Println(s)
		return err
	case "mkdir":
		return os.MkdirAll(a[0], 0o755)
	case "mkfifo":
		return syscall.Mkfifo(a[0], 0o644)
	case "mknod":
		return syscall.Mknod(a[0], syscall.S_IFCHR|0o644, num(a[1])<<8|num(a[2]))
	case "symlink":
		return os.Symlink(a[0], a[1])
	case "link":
		return os.Link(a[0], a[1])
	case "rename":
		return os.Rename(a[0], a[1])
	case "rm":
		return os.Remove(a[0])
	case "rmall":
		return os.RemoveAll(a[0])
	case "chmod":
		return syscall.Chmod(a[0], uint32(num(a[1])))
	case "chown":
		return syscall.Chown(a[0], num(a[1]), num(a[2]))
	case "lchown":
		return syscall.Lchown(a[0], num(a[1]), num(a[2]))
	case "fchown":
		f, err := os.Open(a[0])
		if err != nil {
			return err
		}
		return syscall.Fchown(int(f.Fd()), num(a[1]), num(a[2]))
	case "fchownat":
		return syscall.Fchownat(-100, a[0], num(a[1]), num(a[2]), 0)
	case "setuid":
		return syscall.Setuid(num(a[0]))
	case "setgid":
		return syscall.Setgid(num(a[0]))
	case "setgroups":
		var gs []int
		for _, s := range a {
			gs = append(gs, num(s))
		}
		return syscall.Setgroups(gs)
	case "setxattr":
		return syscall.Setxattr(a[0], a[1], []byte(a[2]), 0)
	case "setcap": // from a file
		b, err := os.ReadFile(a[1])
		if err != nil {
			return err
		}
		return syscall.Setxattr(a[0], "security.capability", b, 0)
	case "getxattr":
		b := make([]byte, 256)
		n, err := syscall.Getxattr(a[0], a[1], b)
		fmt.Printf("%x\n", b[:max(n, 0)])
		return err
	case "mount":
		return syscall.Mount(a[0], a[1], a[2], 0, "")
	case "umount":
		return syscall.Unmount(a[0], 0)
	case "unshare":
		return unshare(num(a[0]))
	case "chroot":
		return syscall.Chroot(a[0])
	case "sethostname":
		return syscall.Sethostname([]byte(a[0]))
	case "kill":
		return syscall.Kill(num(a[0]), syscall.Signal(num(a[1])))
	case "ignore":
		signal.Ignore()
	case "sleep":
		ts := syscall.NsecToTimespec(int64(num(a[0])) * 1e6) // milliseconds
		for {
			var rem syscall.Timespec
			if err := syscall.Nanosleep(&ts, &rem); err != syscall.EINTR {
				return err
			}
			ts = rem
		}
	case "fill": // bytes to stdout
		return fill(os.Stdout, num(a[0]))
	case "fillerr":
		return fill(os.Stderr, num(a[0]))
	case "exec":
		return syscall.Exec(a[0], a, os.Environ())
	case "self": // run this program again as a child; a child's failure is ours
		return child(a, false)
	case "daemon": // run this program again, in a session of its own, and do not wait
		return child(a, true)
	case "nest": // run this program again as root of a user and mount namespace of its own
		return nest(a)
	case "overwrite":
		return overwrite(a)
	default:
		return reach(verb, a)
	}
	return nil
}

func flip(a, b string, once bool) error {
	const exchange = 2
	pa, err := syscall.BytePtrFromString(a)
	if err != nil {
		return err
	}
	pb, err := syscall.BytePtrFromString(b)
	if err != nil {
		return err
	}
	nr := map[string]uintptr{"amd64": 316, "arm64": 276, "riscv64": 276}[runtime.GOARCH]
	at := -100
	for i := 0; ; i++ {
		if i%8 == 0 { // who is attacked needs a processor too
			syscall.Select(0, nil, nil, nil, &syscall.Timeval{Usec: 50})
		}
		_, _, errno := syscall.Syscall6(nr, uintptr(at), uintptr(unsafe.Pointer(pa)), uintptr(at), uintptr(unsafe.Pointer(pb)), exchange, 0)
		if errno != 0 && errno != syscall.ENOENT && errno != syscall.EBUSY {
			return errno
		}
		if once {
			return nil
		}
	}
}

// walkProc prints "ESCAPED NAME" for every way to the file of the host, and how many it tried.
func walkProc(file string) {
	up := strings.Repeat("../", 40)
	tried := 0
	try := func(name string) {
		tried++
		if f, err := os.Open(name); err == nil {
			fmt.Println("ESCAPED", name)
			f.Close()
		}
	}
	process := func(dir string) {
		for _, link := range []string{"root", "cwd", "exe"} {
			try(dir + "/" + link + "/" + up + file)
		}
		try(dir + "/root" + file)
		for _, fds := range []string{"/fd", "/map_files"} {
			es, err := os.ReadDir(dir + fds)
			for n := range 24 { // its numbers can be guessed where they are not shown
				if err != nil {
					try(dir + fds + "/" + strconv.Itoa(n) + "/" + up + file)
				}
			}
			for _, e := range es {
				try(dir + fds + "/" + e.Name() + "/" + up + file)
			}
		}
	}
	es, _ := os.ReadDir("/proc")
	for _, e := range es {
		if e.Name()[0] < '0' || e.Name()[0] > '9' {
			continue
		}
		process("/proc/" + e.Name())
		tasks, _ := os.ReadDir("/proc/" + e.Name() + "/task")
		for _, task := range tasks {
			process("/proc/" + e.Name() + "/task/" + task.Name())
		}
	}
	fmt.Println("tried", tried)
}
