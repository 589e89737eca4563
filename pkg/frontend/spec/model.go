package spec

import "github.com/manifestctl/manifestctl/pkg/graph"

// document is a decoded spec: types checked, variables not expanded yet.
type document struct {
	root        *node
	version     *node
	platforms   []text
	hasPlatform *node // the key's value
	args        []arg
	badArgs     bool
	from        *from
	accounts    *accounts
	stages      []*stage
	steps       []*step
	config      config
	annotations annotations
	allow       []graph.Allow
}

// arg is one declared build argument.
type arg struct {
	key   *node
	value *string // nil: no default
}

// from is a base: one reference for all platforms or one for each pattern.
type from struct {
	n     *node
	ref   *template // nil: cases
	cases []fromCase
}

type fromCase struct {
	key      *node
	patterns pattern
	other    bool // "default"
	ref      *template
}

// stage is a named chain of steps that other chains start from, copy or mount.
type stage struct {
	key       *node
	from      *from
	platform  text // "", "build", "target" or a platform
	perTarget bool
	accounts  *accounts
	steps     []*step
	bad       bool
}

// step is one layer. Exactly one of the kinds is set.
type step struct {
	n    *node
	bad  bool // reported; not built
	name text
	when *when

	keys map[string]*node // which keys were given, for the check that they belong together

	files    []*file
	archive  *archive
	run      *run
	remove   []*template
	copy     *copyStep
	accounts *accounts
}

// when says for which builds a step is there.
type when struct {
	platforms []pattern
	args      []whenArg
}

type whenArg struct {
	key   *node
	value string
}

// file is an entry of files.
type file struct {
	n       *node
	keys    map[string]*node
	path    *template
	source  *template
	context text
	content text
	expand  bool
	typ     text
	mode    *uint32
	dirMode *uint32
	owner   text
	target  *template
	major   int64
	minor   int64
	xattrs  map[string]string
	mtime   *int64

	body *template // content with variables, when expand
	bad  bool
}

type archive struct {
	n       *node
	source  *template
	context text
	path    *template
}

type run struct {
	shell   *node // "run: STRING"
	argv    []text
	script  string
	interp  []text // shell:
	network graph.Network
	env     []envVar
	mounts  []*mount
	user    text
	workdir *template
}

type envVar struct {
	key   *node
	value *template
}

type mount struct {
	n        *node
	keys     map[string]*node
	typ      text
	target   *template
	from     *template
	source   *template
	context  text
	id       *template
	sharing  text
	writable bool
	size     int64
	mode     *uint32
	uid, gid int64
	required bool
	env      text
	bad      bool
}

type copyStep struct {
	n      *node
	from   *template
	source *template
	path   *template
	owner  text
	mode   *uint32
}

type accounts struct {
	n      *node
	users  []graph.User
	groups []graph.Group
}

type config struct {
	entrypoint []text
	cmd        []text
	env        []envVar
	user       text
	workdir    *template
	labels     []envVar
	ports      []string
	volumes    []*template
	stopSignal text
	author     text
}

type annotations struct {
	index    []envVar
	manifest []envVar
}
