package index

import (
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// A Runtime is a way to choose from an index. Programs that share a library choose alike.
type Runtime string

// The runtimes, by whose rules they are. testdata/choices.json holds what the real ones chose.
const (
	DockerEngine Runtime = "docker" // dockerd with the containerd image store: it calls containerd's code
	// DockerEngine20 is dockerd up to 20.10: it knows of arm only what else a machine runs, and rather takes a wrong variant
	// of it than none.
	DockerEngine20 Runtime = "docker-20.10"
	Containerd     Runtime = "containerd" // also ctr, nerdctl, BuildKit, CRI
	Podman         Runtime = "podman"     // containers/image: also buildah, skopeo, CRI-O
	Crane          Runtime = "crane"      // go-containerregistry: also ko, kaniko, cosign
)

// Runtimes lists those that are current.
func Runtimes() []Runtime { return []Runtime{DockerEngine, Containerd, Podman, Crane} }

// ParseRuntime reads the name of a runtime, or of a program that chooses like one.
func ParseRuntime(s string) (Runtime, error) {
	switch s {
	case "docker", "dockerd":
		return DockerEngine, nil
	case "docker-20.10", "docker@20.10":
		return DockerEngine20, nil
	case "containerd", "ctr", "nerdctl", "buildkit", "cri", "kubernetes":
		return Containerd, nil
	case "podman", "skopeo", "buildah", "cri-o", "crio":
		return Podman, nil
	case "crane", "ko", "kaniko", "cosign", "ggcr":
		return Crane, nil
	}
	return "", fmt.Errorf("unknown runtime %.100q: known are docker, containerd, podman and crane", s)
}

// Choice is what a runtime takes from an index.
type Choice struct {
	At  int    // position of the entry; -1: none
	Why string // by which rule, for people
	// IfConfig says that the entry has no platform and is taken only if its config is of one that runs on the machine.
	IfConfig bool
}

// Pick tells which entry of manifests a runtime on a machine takes. An entry that is itself an index is looked into by whoever asks.
func Pick(rt Runtime, host platform.Platform, manifests []ocispec.Descriptor) Choice {
	host = platform.Normalise(host)
	switch rt {
	case Podman:
		return pickPodman(host, manifests)
	case Crane:
		return pickCrane(host, manifests)
	case DockerEngine20:
		return pickDocker20(host, manifests)
	default:
		return pickContainerd(host, manifests)
	}
}

// pickContainerd: the best of the platforms that the machine runs, of equals the first; else the first that says none.
func pickContainerd(host platform.Platform, manifests []ocispec.Descriptor) Choice {
	var have []platform.Platform
	var at []int
	unsaid := -1
	for i, m := range manifests {
		if m.Platform == nil || m.Platform.OS == "" && m.Platform.Architecture == "" {
			if unsaid < 0 {
				unsaid = i
			}
			continue
		}
		if p, err := platform.FromOCI(*m.Platform); err == nil {
			have, at = append(have, p), append(at, i)
		}
	}
	if i, ok := platform.Select(host, have); ok {
		p := have[i]
		why := "it is of the platform"
		switch {
		case p.Arch != host.Arch:
			why = fmt.Sprintf("there is none for %s, and %s counts as something that runs there", host, p)
		case p.Variant != host.Variant:
			why = fmt.Sprintf("there is none for %s, and %s is the best of what runs there", host, p)
		}
		if n := count(have, p); n > 1 {
			why += fmt.Sprintf("; of %d for it the first", n)
		}
		return Choice{At: at[i], Why: why}
	}
	if unsaid >= 0 {
		return Choice{At: unsaid, Why: "no entry is for the platform, and the config of this one says it is", IfConfig: true}
	}
	return Choice{At: -1, Why: "no entry is for anything that runs there"}
}

// pickDocker20: the platform itself, of arm a lower variant, else any of arm; of equals the first.
func pickDocker20(host platform.Platform, manifests []ocispec.Descriptor) Choice {
	var same []ocispec.Descriptor
	var at []int
	for i, m := range manifests {
		if m.Platform == nil {
			continue
		}
		if p, err := platform.FromOCI(*m.Platform); err == nil && (p == host || p.OS == host.OS && p.Arch == "arm" && host.Arch == "arm") {
			same, at = append(same, m), append(at, i)
		}
	}
	if len(same) == 0 {
		return Choice{At: -1, Why: "no entry is of the platform"}
	}
	c := pickContainerd(host, same)
	if c.At < 0 {
		return Choice{At: at[0], Why: fmt.Sprintf("there is none that runs on %s: it is the first of arm at all", host)}
	}
	c.At = at[c.At]
	return c
}

func count(have []platform.Platform, p platform.Platform) (n int) {
	for _, h := range have {
		if h == p {
			n++
		}
	}
	return n
}

// podmanVariants are the variants that containers/image knows, best first.
var podmanVariants = map[string][]string{
	"arm":   {"v8", "v7", "v6", "v5"},
	"arm64": {"v8"},
}

// pickPodman compares names as they are written: the machine's variant, the ones below it, no variant; of each the first.
// An architecture without known variants is taken only when the entry names none.
func pickPodman(host platform.Platform, manifests []ocispec.Descriptor) Choice {
	wanted := []string{""}
	own := host.Variant
	if own == "" && host.Arch == "arm64" {
		own = "v8" // what the machine says of itself
	}
	if known := podmanVariants[host.Arch]; own != "" {
		if i := slices.Index(known, own); i >= 0 {
			wanted = append(slices.Clone(known[i:]), "")
		} else {
			wanted = []string{own, ""}
		}
	}
	for _, v := range wanted {
		for i, m := range manifests {
			if p := m.Platform; p != nil && p.OS == host.OS && p.Architecture == host.Arch && p.Variant == v {
				switch {
				case v == own:
					return Choice{At: i, Why: "it is the first of the platform"}
				case v == "":
					return Choice{At: i, Why: "it is the first of the architecture that names no variant"}
				default:
					return Choice{At: i, Why: fmt.Sprintf("it is the first of %s, the best variant that there is for %s", v, own)}
				}
			}
		}
	}
	for i, m := range manifests {
		if m.Platform == nil {
			return Choice{At: i, Why: "no entry is for the platform, and this one does not say what it is for"}
		}
	}
	return Choice{At: -1, Why: fmt.Sprintf("no entry is written %s/%s with one of the variants %q", host.OS, host.Arch, wanted)}
}

// pickCrane takes the first whose names are as asked for; what is not asked for may be anything. No platform is linux/amd64.
func pickCrane(host platform.Platform, manifests []ocispec.Descriptor) Choice {
	for i, m := range manifests {
		p := ocispec.Platform{OS: "linux", Architecture: "amd64"}
		if m.Platform != nil {
			p = *m.Platform
		}
		if p.OS != host.OS || p.Architecture != host.Arch ||
			host.Variant != "" && p.Variant != host.Variant || host.OSVersion != "" && p.OSVersion != host.OSVersion ||
			!hasAll(p.OSFeatures, host.OCI().OSFeatures) {
			continue
		}
		if m.Platform == nil {
			return Choice{At: i, Why: "it does not say what it is for, which counts as linux/amd64"}
		}
		return Choice{At: i, Why: "it is the first that has all that is asked for"}
	}
	return Choice{At: -1, Why: fmt.Sprintf("no entry is written %s", strings.TrimSuffix(host.OS+"/"+host.Arch+"/"+host.Variant, "/"))}
}

func hasAll(have, want []string) bool {
	for _, w := range want {
		if !slices.Contains(have, w) {
			return false
		}
	}
	return true
}
