package output

import (
	"fmt"
	"strconv"
	"strings"
)

// Kind is one kind of destination, for help and documentation.
type Kind struct {
	Name       string
	Help       string
	Attributes []Attribute
}

// Attribute is one key of an -o argument.
type Attribute struct {
	Name  string
	Value string // what is given: "PATH", "BOOL"
	Help  string

	set func(*draft, string) error
}

// kind is a row of the table: its attributes by name, and how it is opened.
type kind struct {
	name, help string
	attributes string // in the order that help shows them
	open       func(Spec, Env) (Destination, error)
}

// kinds is the table of destinations. The parser, help and documentation read it.
var kinds = []kind{
	{
		"image", "the store, under its names; push=true pushes it as well",
		"name push push-by-digest name-canonical " + formAttributes, openImage,
	},
	{
		"registry", "short for type=image,push=true",
		"name push push-by-digest name-canonical " + formAttributes, openImage,
	},
	{
		"oci", "an OCI image layout: a tar, or with tar=false a directory, where other images stay",
		"dest tar name " + formAttributes, openOCI,
	},
	{
		"docker", "a tar for docker load and podman load: one platform",
		"dest name " + formAttributes, openDocker,
	},
	{
		"local", "the files of the root file system in a directory; one below it a platform if there are several",
		"dest rewrite-timestamp", openLocal,
	},
	{
		"tar", "the files of the root file system as a tar; below a directory a platform if there are several",
		"dest rewrite-timestamp", openTar,
	},
}

// formAttributes decide the bytes of an image.
const formAttributes = "compression compression-level force-compression oci-mediatypes rewrite-timestamp"

// attributes is the table of everything an -o argument can say beside its type.
var attributes = []Attribute{
	{"dest", "PATH", "file or directory to write; - is stdout", func(d *draft, v string) error {
		if v == "" || strings.ContainsRune(v, 0) {
			return fmt.Errorf("%q is no path", v)
		}
		d.Dest = v
		return nil
	}},
	{"tar", "BOOL", "a tar (default), or a directory", boolean(func(d *draft, v bool) { d.Dir = !v })},
	{"name", "NAME[:TAG],...", "names of the result; default: those of -t; several in quotes or repeated", func(d *draft, v string) error {
		for name := range strings.SplitSeq(v, ",") {
			if name = strings.TrimSpace(name); name == "" {
				return fmt.Errorf("a name is empty")
			}
			d.Names = append(d.Names, name)
		}
		return nil
	}},
	{"push", "BOOL", "push to the registry", boolean(func(d *draft, v bool) { d.Push, d.pushSaid = v, true })},
	{"push-by-digest", "BOOL", "push without a tag", boolean(func(d *draft, v bool) { d.PushByDigest = v })},
	{"name-canonical", "BOOL", "name the result NAME@DIGEST in the store too", boolean(func(d *draft, v bool) { d.Canonical = v })},
	{"compression", "gzip|zstd|estargz|uncompressed", "of layers made here (default gzip)", func(d *draft, v string) error {
		if v == "" {
			return fmt.Errorf("it is empty")
		}
		d.algorithm = v
		return nil
	}},
	{"compression-level", "N", "1 to 9 for gzip and estargz, 1 to 22 for zstd", func(d *draft, v string) error {
		if _, err := strconv.Atoi(v); err != nil {
			return fmt.Errorf("%q is no number", v)
		}
		d.level = v
		return nil
	}},
	{"force-compression", "BOOL", "compress layers of the base as well", boolean(func(d *draft, v bool) { d.Force = v })},
	{"oci-mediatypes", "BOOL", "OCI's media types (default, but for docker), or Docker's", boolean(func(d *draft, v bool) {
		d.DockerTypes, d.typesSaid = !v, true
	})},
	{"rewrite-timestamp", "BOOL", "clamp times in layers made here to SOURCE_DATE_EPOCH", boolean(func(d *draft, v bool) { d.Rewrite = v })},
}

// elsewhere says what to do about attributes that BuildKit has and this program has not.
var elsewhere = map[string]string{
	"registry.insecure":    "use --insecure=HOST, or --plain-http=HOST",
	"unpack":               "there is no runtime to unpack for",
	"store":                "an image is always in the store",
	"dangling-name-prefix": "a result without a name is store:untagged:ID",
	"oci-artifact":         "attestations are not attached yet",
	"attestation-prefix":   "attestations are not attached yet",
	"platform-split":       "several platforms are always split, and one never is",
	"mode":                 "files are copied over what is there, and nothing is deleted",
	"context":              "docker load -i FILE, or a pipe to docker load, loads type=docker",
	"load":                 "docker load -i FILE, or a pipe to docker load, loads type=docker",
	"buildinfo":            "BuildKit removed it as well",
}

func boolean(set func(*draft, bool)) func(*draft, string) error {
	return func(d *draft, v string) error {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", v)
		}
		set(d, b)
		return nil
	}
}

// Kinds lists the kinds of destinations with their attributes, as help shows them.
func Kinds() []Kind {
	out := make([]Kind, len(kinds))
	for i, k := range kinds {
		out[i] = Kind{Name: k.name, Help: k.help}
		for name := range strings.FieldsSeq(k.attributes) {
			a, _ := attribute(name)
			out[i].Attributes = append(out[i].Attributes, a)
		}
	}
	return out
}

func attribute(name string) (Attribute, bool) {
	for _, a := range attributes {
		if a.Name == name {
			return a, true
		}
	}
	return Attribute{}, false
}

// has reports whether k takes an attribute.
func (k kind) has(name string) bool {
	for a := range strings.FieldsSeq(k.attributes) {
		if a == name {
			return true
		}
	}
	return false
}

// kindOf finds a kind by its name.
func kindOf(name string) (kind, error) {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		if k.name == name {
			return k, nil
		}
		names[i] = k.name
	}
	if best := nearest(name, names); best != "" {
		return kind{}, fmt.Errorf("unknown type %.100q: did you mean %s?", name, best)
	}
	return kind{}, fmt.Errorf("unknown type %.100q: known are %s", name, strings.Join(names, ", "))
}

// nearest returns the one of names that is at most two slips from word and less than half of it away, or "".
func nearest(word string, names []string) string {
	best, least := "", min(3, len(word)/2+1)
	for _, name := range names {
		if len(word) > 64 {
			break
		}
		row := make([]int, len(name)+1)
		for j := range row {
			row[j] = j
		}
		for i := range len(word) {
			diagonal := row[0]
			row[0] = i + 1
			for j := range len(name) {
				cost := diagonal
				if word[i] != name[j] {
					cost++
				}
				diagonal = row[j+1]
				row[j+1] = min(cost, row[j]+1, diagonal+1)
			}
		}
		if row[len(name)] < least {
			best, least = name, row[len(name)]
		}
	}
	return best
}
