package sandbox

import (
	"errors"
	"os"
	"strings"
	"syscall"
)

// confinedByContainer says that a container refuses this process what steps need: it has a seccomp profile, or is root without a
// root's capabilities.
func confinedByContainer() bool {
	return status("Seccomp") == "2" || os.Geteuid() == 0 && len(missingCaps()) > 0
}

// fixes are all ways to let steps run here, by what runs the containers; on a host without one, its own settings.
func fixes() []Fix {
	if !confinedByContainer() {
		return hostFixes()
	}
	var out []Fix
	profile := status("Seccomp") == "2"
	root := os.Geteuid() == 0
	docker := []string{}
	if profile {
		docker = append(docker, "--security-opt seccomp=unconfined", "--security-opt apparmor=unconfined")
	}
	if caps := missingCaps(); root && len(caps) > 0 {
		if profile {
			out = append(out, Fix{Where: "docker, podman", Do: "without another profile: --cap-add " + strings.Join(caps, " --cap-add ") + " (steps in a chroot)"})
		} else {
			docker = append(docker, "--user 1000 (or --cap-add SETFCAP --cap-add SETUID --cap-add SETGID)")
		}
		out = append(out, Fix{Where: "cri-o, openshift", Do: "capabilities.add: [" + strings.Join(caps, ", ") + "]"})
	}
	if caps := missingCaps(); root && len(caps) > 0 {
		out = append(out, Fix{Where: "here", Do: "--executor inplace: a step gets this container's own root file system, whose files are put aside meanwhile"})
	}
	if !root && profile {
		out = append(out, Fix{Where: "docker, podman", Do: "as root with the default profile: --user 0 (steps in a chroot)"})
	}
	out = append(out, Fix{Where: "docker, podman", Do: strings.Join(docker, " ") + " and the store on a volume (-v VOLUME:/store, --root /store); --security-opt systempaths=unconfined for a /proc of its own"})
	if !profile {
		return out
	}
	return append(
		out,
		Fix{Where: "kubernetes", Do: "securityContext: {seccompProfile: {type: Unconfined}, appArmorProfile: {type: Unconfined}} and an emptyDir for --root; better: hostUsers: false with procMount: Unmasked"},
		Fix{Where: "gitlab, docker executor", Do: `in config.toml: [runners.docker] security_opt = ["seccomp=unconfined", "apparmor=unconfined"]; or a job image whose user is root`},
		Fix{Where: "gitlab, kubernetes executor", Do: "in config.toml: [runners.kubernetes.build_container_security_context] as for kubernetes"},
		Fix{Where: "github", Do: "container: {options: --security-opt seccomp=unconfined --security-opt apparmor=unconfined}; or no container, on the virtual machine itself"},
	)
}

// hostFixes are settings of the machine. The first that is set against user namespaces is the cause.
func hostFixes() []Fix {
	set := func(key, value string) Fix {
		return Fix{Where: "this host", Do: "sysctl -w " + key + "=" + value, Script: "sudo sysctl -w " + key + "=" + value}
	}
	var out []Fix
	if sysctl("kernel/unprivileged_userns_clone") == "0" {
		out = append(out, set("kernel.unprivileged_userns_clone", "1"))
	}
	if sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1" {
		f := set("kernel.apparmor_restrict_unprivileged_userns", "0")
		f.Where = "ubuntu 24.04, github's virtual machines"
		out = append(out, f)
	}
	if sysctl("user/max_user_namespaces") == "0" {
		out = append(out, set("user.max_user_namespaces", "15000"))
	}
	return out
}

// refusal says why no mode works.
type refusal struct {
	text string
	errs []error
}

func (r *refusal) Error() string   { return r.text }
func (r *refusal) Unwrap() []error { return r.errs }

// refuse makes one text of why each mode does not work.
func refuse(errs map[Mode]error) error {
	r := &refusal{}
	var lines []string
	var userns error
	for _, m := range []Mode{ModeRoot, ModeSingle} {
		if err := errs[m]; err != nil {
			r.errs = append(r.errs, err)
			var errno syscall.Errno
			if userns == nil || errors.As(err, &errno) {
				userns = err
			}
		}
	}
	if err := errs[ModeRanges]; err != nil {
		r.errs = append(r.errs, err)
	}
	text := func(err error) string { return strings.TrimPrefix(err.Error(), ErrHost.Error()+": ") }
	if userns != nil {
		lines = append(lines, text(userns))
	}
	if err := errs[ModeChroot]; err != nil {
		r.errs = append(r.errs, err)
		lines = append(lines, "nor in a chroot: "+text(err))
	}
	r.text = ErrHost.Error() + ": " + strings.Join(lines, "; ")
	for _, f := range fixes() {
		r.text += "\n  " + f.Where + ": " + f.Do
	}
	r.text += "\n  what runs nothing (FROM, COPY, files, metadata) builds here as it is"
	return r
}
