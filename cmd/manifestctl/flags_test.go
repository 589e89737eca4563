package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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
			root := newRoot(e)
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
