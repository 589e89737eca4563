package sandbox

import (
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// mendUserns names what refuses user namespaces on this host and how to allow them.
func mendUserns(errno syscall.Errno) string {
	switch errno {
	case unix.ENOSPC, unix.EUSERS:
		return "no more user namespaces: raise user.max_user_namespaces and user.max_pid_namespaces with sysctl"
	case unix.EINVAL, unix.ENOSYS:
		return "this kernel has no user namespaces, or this process may not make them here (chroot, gVisor)"
	}
	if sysctl("kernel/unprivileged_userns_clone") == "0" {
		return "sysctl -w kernel.unprivileged_userns_clone=1"
	}
	if sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1" {
		return "AppArmor restricts user namespaces: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or add a profile for this program"
	}
	if sysctl("user/max_user_namespaces") == "0" {
		return "sysctl -w user.max_user_namespaces=15000"
	}
	if status("Seccomp") == "2" {
		return "a seccomp profile refuses it (a container's default): run the container with --security-opt seccomp=unconfined"
	}
	if os.Geteuid() == 0 {
		return "uid 0 can be mapped only with CAP_SETFCAP (and CAP_SETUID, CAP_SETGID for all ids): add them, or run as an ordinary user"
	}
	return "a chroot, a seccomp profile or a security module refuses it"
}

// mendMounts names what lets a process make a user namespace and then refuses what root may do in it.
func mendMounts() string {
	if sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1" {
		return "AppArmor restricts user namespaces: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or add a profile for this program"
	}
	if status("Seccomp") == "2" {
		return "a seccomp profile or AppArmor refuses it (a container's default): --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
	}
	return "a security module refuses it"
}

func sysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// status is a line of /proc/self/status.
func status(key string) string {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && k == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// mendContainer names the settings with which a container lets steps have namespaces.
func mendContainer() string {
	return "docker: --security-opt seccomp=unconfined --security-opt apparmor=unconfined; kubernetes: seccompProfile and appArmorProfile of type Unconfined; manifestctl doctor says more"
}
