package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/credentials"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

func TestHostsFlag(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want registry.Hosts
		bad  bool
	}{
		"absent":       {args: nil, want: registry.Hosts{}},
		"bare":         {args: []string{"--plain-http"}, want: registry.Hosts{All: true}},
		"true":         {args: []string{"--plain-http=true"}, want: registry.Hosts{All: true}},
		"false":        {args: []string{"--plain-http", "--plain-http=false"}, want: registry.Hosts{}},
		"hosts":        {args: []string{"--plain-http=a:5000,b"}, want: registry.Hosts{Names: []string{"a:5000", "b"}}},
		"repeated":     {args: []string{"--plain-http=a", "--plain-http=b,a"}, want: registry.Hosts{Names: []string{"a", "b"}}},
		"a URL":        {args: []string{"--plain-http=http://a"}, bad: true},
		"credentials":  {args: []string{"--plain-http=u:p@a"}, bad: true},
		"empty member": {args: []string{"--plain-http=a,,b"}, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			e := testEnv(nil)
			root := newRoot(e, nil)
			err := root.ParseFlags(tc.args)
			if tc.bad {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.want, e.globals.plainHTTP.Hosts)
		})
	}
}

func TestKeyValues(t *testing.T) {
	env := testEnv(map[string]string{"SET": "here"})
	for name, tc := range map[string]struct {
		in   []string
		want map[string]string
		bad  bool
	}{
		"none":               {},
		"value":              {in: []string{"A=1", "B=x=y", "C="}, want: map[string]string{"A": "1", "B": "x=y", "C": ""}},
		"from environment":   {in: []string{"SET", "UNSET"}, want: map[string]string{"SET": "here"}},
		"last one wins":      {in: []string{"A=1", "A=2"}, want: map[string]string{"A": "2"}},
		"no name":            {in: []string{"=1"}, bad: true},
		"nothing whatsoever": {in: []string{""}, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := keyValues("build-arg", tc.in, env.lookup)
			if tc.bad {
				require.ErrorIs(t, err, errUsage)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.want, got)
		})
	}
	_, err := keyValues("label", []string{"SET"}, nil)
	require.ErrorIs(t, err, errUsage)
}

func TestNearest(t *testing.T) {
	commands := []string{"build", "doctor", "emulate", "inspect", "serve", "store", "version"}
	for in, want := range map[string]string{
		"biuld": "build", "isnpect": "inspect", "emul": "emulate", "Build": "build", "zzz": "", "x": "",
	} {
		got, _ := nearest(in, commands)
		assert.Equal(t, want, got, "%q", in)
	}
}

func TestParseCreds(t *testing.T) {
	for text, want := range map[string]credentials.Given{
		"me:p":                         {User: "me", Pass: "p"},
		"me:":                          {User: "me"},
		"me:p=q:r":                     {User: "me", Pass: "p=q:r"},
		"registry.example=me:p":        {Host: "registry.example", User: "me", Pass: "p"},
		"registry.example:5000=me:p=q": {Host: "registry.example:5000", User: "me", Pass: "p=q"},
		"localhost=me:p":               {Host: "localhost", User: "me", Pass: "p"},
		"me:pass.word=x":               {User: "me", Pass: "pass.word=x"},
		"[::1]:5000=me:p":              {Host: "[::1]:5000", User: "me", Pass: "p"},
	} {
		got, err := parseCreds(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "s3cret", ":s3cret", "registry.example=s3cret"} {
		_, err := parseCreds(text)
		require.ErrorIs(t, err, errUsage, text)
		assert.NotContains(t, err.Error(), "s3cret")
	}
}

// TestBindGiven holds that a password without a host goes to one registry.
func TestBindGiven(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string // "": refused
	}{
		"the only registry":           {[]string{"digest", "r.example/app:1"}, "r.example"},
		"with a scheme":               {[]string{"digest", "docker://debian"}, "docker.io"},
		"a short name is docker's":    {[]string{"digest", "debian"}, "docker.io"},
		"a short name beside another": {[]string{"copy", "debian", "r.example:5000/debian"}, "r.example:5000"},
		"two":                         {[]string{"copy", "a.example/x", "b.example/x"}, ""},
		"the same twice":              {[]string{"copy", "a.example/x", "a.example/y"}, "a.example"},
		"a layout":                    {[]string{"copy", "oci:dir.d/x", "b.example/x"}, "b.example"},
		"a tag of a build":            {[]string{"build", "-t", "r.example/app", "."}, "r.example"},
		"an output of a build":        {[]string{"build", "-o", "type=registry,name=r.example/app", "."}, "r.example"},
	} {
		t.Run(name, func(t *testing.T) {
			root := newRoot(testEnv(nil), nil)
			cmd, rest, err := root.Find(tc.args)
			require.NoError(t, err)
			require.NoError(t, cmd.ParseFlags(rest))
			given := []credentials.Given{{User: "me", Pass: "p"}}
			err = bindGiven(given, cmd, cmd.Flags().Args())
			if tc.want == "" {
				require.ErrorIs(t, err, errUsage)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.want, given[0].Host)
		})
	}
}

// What the table says a command is called is what it says itself, so that one alone is found under all its names.
func TestCommandsAreCalledWhatTheTableSays(t *testing.T) {
	e := testEnv(nil)
	for _, row := range table {
		cmd := row.make(e)
		assert.Equal(t, row.names, append([]string{cmd.Name()}, cmd.Aliases...))
		assert.Len(t, commands(e, row.names[:1]), 1)
	}
	assert.Len(t, commands(e, []string{"--help"}), len(table))
	assert.Len(t, commands(e, []string{"inspekt"}), len(table), "for what was meant")
}
