// Package cdi finds devices of this machine by the files of the Container Device Interface (its specification, SPEC.md), which
// drivers and administrators write: what of the machine a container sees that is given a device. It reads these files only.
//
// # Invariants
//
//   - A device that two files of one directory describe is none: nobody can say which is meant.
//   - What a file says is data: no program that it names is run.
package cdi

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/manifestctl/manifestctl/internal/yamlfile"
)

// ErrInvalid is the kind of a file that describes no devices.
var ErrInvalid = errors.New("invalid CDI file")

// DefaultDirs are where the files are, the later before the earlier (SPEC.md, "CDI JSON Specification").
func DefaultDirs() []string { return []string{"/etc/cdi", "/var/run/cdi"} }

// Annotations of BuildKit in these files.
const (
	annotationClass = "org.mobyproject.buildkit.device.class"
	annotationAllow = "org.mobyproject.buildkit.device.autoallow"
)

// maxFile is the longest file that is read, in bytes.
const maxFile = 1 << 20

// Device is one that is described.
type Device struct {
	Name    string // VENDOR/CLASS=NAME
	Class   string // another name for it, BuildKit's annotation; may be ""
	Allowed bool   // steps may have it without being told: BuildKit's annotation
	Edits   Edits
}

// Edits are what of the machine comes with a device.
type Edits struct {
	Env    []string // KEY=value
	Nodes  []Node
	Mounts []Mount
	Hooks  []string // programs that a runtime should run, and nobody here does
}

// Node is a device node.
type Node struct {
	Path     string // in the container
	HostPath string
}

// Mount is a file or directory of the machine.
type Mount struct {
	HostPath, Path string
	ReadOnly       bool
}

// Devices are those of some directories.
type Devices struct{ list []Device } // by name

// file is one of the format.
type file struct {
	Version     string            `yaml:"cdiVersion"`
	Kind        string            `yaml:"kind"`
	Annotations map[string]string `yaml:"annotations"`
	Devices     []struct {
		Name        string            `yaml:"name"`
		Annotations map[string]string `yaml:"annotations"`
		Edits       edits             `yaml:"containerEdits"`
	} `yaml:"devices"`
	Edits edits `yaml:"containerEdits"`
}

type edits struct {
	Env         []string `yaml:"env"`
	DeviceNodes []struct {
		Path     string `yaml:"path"`
		HostPath string `yaml:"hostPath"`
	} `yaml:"deviceNodes"`
	Mounts []struct {
		HostPath      string   `yaml:"hostPath"`
		ContainerPath string   `yaml:"containerPath"`
		Options       []string `yaml:"options"`
	} `yaml:"mounts"`
	Hooks []struct {
		Name string `yaml:"hookName"`
		Path string `yaml:"path"`
	} `yaml:"hooks"`
}

// Load reads the files of directories, JSON or YAML. A directory that is not there has none. Files that are wrong are left
// out; the error says which, and the devices of the others are there all the same.
func Load(dirs []string) (*Devices, error) {
	byName := map[string]Device{}
	var errs []error
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
			continue
		}
		here := map[string]Device{}
		twice := map[string]bool{}
		for _, e := range entries {
			if !slices.Contains([]string{".json", ".yaml", ".yml"}, filepath.Ext(e.Name())) || e.IsDir() {
				continue
			}
			list, err := read(filepath.Join(dir, e.Name()))
			errs = append(errs, err)
			for _, d := range list {
				_, had := here[d.Name]
				twice[d.Name] = twice[d.Name] || had
				here[d.Name] = d
			}
		}
		for name, d := range here {
			if twice[name] {
				delete(byName, name)
				errs = append(errs, fmt.Errorf("%w: %s: device %q is described twice: it is none", ErrInvalid, dir, name))
				continue
			}
			byName[name] = d
		}
	}
	out := &Devices{}
	for _, d := range byName {
		out.list = append(out.list, d)
	}
	slices.SortFunc(out.list, func(a, b Device) int { return strings.Compare(a.Name, b.Name) })
	return out, errors.Join(errs...)
}

func read(name string) ([]Device, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > maxFile:
		return nil, fmt.Errorf("%w: %s: it is no file of at most %d bytes", ErrInvalid, name, maxFile)
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	list, err := Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return list, nil
}

// Parse reads one file.
func Parse(raw []byte) ([]Device, error) {
	var f file
	if err := yamlfile.Decode(raw, &f, yamlfile.Options{}); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	vendor, class, ok := strings.Cut(f.Kind, "/")
	if !ok || vendor == "" || class == "" || strings.ContainsAny(f.Kind, "= ") {
		return nil, fmt.Errorf("%w: kind %q: want VENDOR/CLASS", ErrInvalid, f.Kind)
	}
	all, err := f.Edits.check()
	if err != nil {
		return nil, err
	}
	out := make([]Device, 0, len(f.Devices))
	for _, d := range f.Devices {
		if d.Name == "" || strings.ContainsAny(d.Name, "= ") {
			return nil, fmt.Errorf("%w: device %q of %s: it has no name", ErrInvalid, d.Name, f.Kind)
		}
		own, err := d.Edits.check()
		if err != nil {
			return nil, fmt.Errorf("device %q of %s: %w", d.Name, f.Kind, err)
		}
		one := Device{Name: f.Kind + "=" + d.Name, Class: f.Annotations[annotationClass], Edits: all.with(own)}
		allow := f.Annotations[annotationAllow]
		if v, ok := d.Annotations[annotationClass]; ok {
			one.Class = v
		}
		if v, ok := d.Annotations[annotationAllow]; ok {
			allow = v
		}
		one.Allowed, _ = strconv.ParseBool(allow)
		out = append(out, one)
	}
	return out, nil
}

// check reads edits: every path is absolute.
func (e edits) check() (out Edits, err error) {
	absolute := func(what, path string) {
		if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
			err = errors.Join(err, fmt.Errorf("%w: %s %q is not an absolute path", ErrInvalid, what, path))
		}
	}
	for _, v := range e.Env {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" || strings.ContainsRune(v, 0) {
			err = errors.Join(err, fmt.Errorf("%w: variable %q: want NAME=VALUE", ErrInvalid, v))
		}
		out.Env = append(out.Env, v)
	}
	for _, n := range e.DeviceNodes {
		host := n.HostPath
		if host == "" {
			host = n.Path
		}
		absolute("device node", n.Path)
		absolute("device node", host)
		out.Nodes = append(out.Nodes, Node{Path: n.Path, HostPath: host})
	}
	for _, m := range e.Mounts {
		absolute("mount of", m.HostPath)
		absolute("mount at", m.ContainerPath)
		out.Mounts = append(out.Mounts, Mount{HostPath: m.HostPath, Path: m.ContainerPath, ReadOnly: slices.Contains(m.Options, "ro")})
	}
	for _, h := range e.Hooks {
		out.Hooks = append(out.Hooks, h.Path)
	}
	return out, err
}

// with adds edits to others.
func (e Edits) with(more Edits) Edits {
	return Edits{
		Env: slices.Concat(e.Env, more.Env), Nodes: slices.Concat(e.Nodes, more.Nodes),
		Mounts: slices.Concat(e.Mounts, more.Mounts), Hooks: slices.Concat(e.Hooks, more.Hooks),
	}
}

// Find gives what a Dockerfile or a flag calls by name, as BuildKit does: VENDOR/CLASS=NAME is that one, VENDOR/CLASS the first
// and VENDOR/CLASS=* all of the kind, and anything else the devices of that class.
func (d *Devices) Find(name string) []Device {
	kind, one, _ := strings.Cut(name, "=")
	var out []Device
	for _, dev := range d.list {
		of, _, _ := strings.Cut(dev.Name, "=")
		if of == kind && (one == "" || one == "*" || dev.Name == name) {
			out = append(out, dev)
			if one != "*" {
				return out
			}
		}
	}
	if len(out) > 0 {
		return out
	}
	for _, dev := range d.list {
		if dev.Class != "" && dev.Class == name {
			out = append(out, dev)
		}
	}
	return out
}
