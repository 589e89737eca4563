package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/build"
)

// testEnv is an env without a world but these variables.
func testEnv(vars map[string]string) *env {
	return &env{lookup: func(name string) (string, bool) { v, ok := vars[name]; return v, ok }}
}

func TestInputFile(t *testing.T) {
	for name, tc := range map[string]struct {
		files []string
		file  string // -f, in the directory
		want  string
	}{
		"the spec":                {files: []string{"rootfs.yaml"}, want: "rootfs.yaml"},
		"a Dockerfile":            {files: []string{"Dockerfile"}, want: "Dockerfile"},
		"a dockerfile":            {files: []string{"dockerfile"}, want: "dockerfile"},
		"both":                    {files: []string{"Dockerfile", "rootfs.yaml"}},
		"none":                    {},
		"named":                   {files: []string{"Dockerfile", "rootfs.yaml", "x.yml"}, file: "x.yml", want: "x.yml"},
		"named and missing":       {files: []string{"rootfs.yaml"}, file: "x.yaml"},
		"named without .yaml":     {files: []string{"rootfs.yaml", "Containerfile"}, file: "Containerfile", want: "Containerfile"},
		"named and a directory":   {files: []string{"d.yaml/x"}, file: "d.yaml"},
		"an argument and no file": {files: []string{"rootfs.yml"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range tc.files {
				path := filepath.Join(dir, f)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
				require.NoError(t, os.WriteFile(path, nil, 0o600))
			}
			if tc.file != "" {
				tc.file = filepath.Join(dir, tc.file)
			}
			got, err := inputFile(tc.file, dir)
			if tc.want == "" {
				require.ErrorIs(t, err, errUsage)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, filepath.Join(dir, tc.want), got)
		})
	}
	t.Run("no directory", func(t *testing.T) {
		_, err := inputFile("", filepath.Join(t.TempDir(), "missing"))
		require.ErrorIs(t, err, errUsage)
		require.ErrorIs(t, err, os.ErrNotExist)
	})
}

func TestEpoch(t *testing.T) {
	seconds := func(n int64) *int64 { return &n }
	for name, tc := range map[string]struct {
		variable string
		args     map[string]string
		want     *int64
		bad      bool
	}{
		"unset":             {},
		"variable":          {variable: "1700000000", want: seconds(1700000000)},
		"zero":              {variable: "0", want: seconds(0)},
		"argument wins":     {variable: "1", args: map[string]string{"SOURCE_DATE_EPOCH": "2"}, want: seconds(2)},
		"no number":         {variable: "yesterday", bad: true},
		"before the epoch":  {variable: "-1", bad: true},
		"argument is empty": {args: map[string]string{"SOURCE_DATE_EPOCH": ""}, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			e := testEnv(map[string]string{"SOURCE_DATE_EPOCH": tc.variable})
			got, err := epoch(e, tc.args)
			if tc.bad {
				require.ErrorIs(t, err, errUsage)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.want, got)
			assert.NotContains(t, tc.args, "SOURCE_DATE_EPOCH")
		})
	}
}

func TestParseSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("s3cret"), 0o600))
	e := testEnv(map[string]string{"TOKEN": "s3cret"})
	for name, tc := range map[string]struct {
		in   []string
		want map[string]build.SecretSource
		bad  bool
	}{
		"none":              {},
		"file":              {in: []string{"id=a,src=" + file}, want: map[string]build.SecretSource{"a": {File: file}}},
		"variable":          {in: []string{"id=a,env=TOKEN"}, want: map[string]build.SecretSource{"a": {Env: "TOKEN"}}},
		"variable by type":  {in: []string{"type=env,id=a,src=TOKEN"}, want: map[string]build.SecretSource{"a": {Env: "TOKEN"}}},
		"id names variable": {in: []string{"id=TOKEN"}, want: map[string]build.SecretSource{"TOKEN": {Env: "TOKEN"}}},
		"id names file":     {in: []string{"id=" + file}, want: map[string]build.SecretSource{file: {File: file}}},
		"missing file":      {in: []string{"id=a,src=/no/such/file"}, bad: true},
		"missing variable":  {in: []string{"id=a,env=NONE"}, bad: true},
		"no id":             {in: []string{"src=" + file}, bad: true},
		"two sources":       {in: []string{"id=a,env=TOKEN,src=" + file}, bad: true},
		"twice":             {in: []string{"id=a,env=TOKEN", "id=a,src=" + file}, bad: true},
		"unknown key":       {in: []string{"id=a,path=" + file}, bad: true},
		"unknown type":      {in: []string{"id=a,type=vault"}, bad: true},
		"a bare word":       {in: []string{"token"}, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseSecrets(e, tc.in)
			if tc.bad {
				require.ErrorIs(t, err, errUsage)
				assert.NotContains(t, err.Error(), "s3cret")
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.want, got)
		})
	}
}

func TestStoreRoot(t *testing.T) {
	for name, tc := range map[string]struct {
		flag string
		vars map[string]string
		want string
	}{
		"flag":          {flag: "/f", vars: map[string]string{"MANIFESTCTL_ROOT": "/m", "HOME": "/h"}, want: "/f"},
		"variable":      {vars: map[string]string{"MANIFESTCTL_ROOT": "/m", "XDG_DATA_HOME": "/x"}, want: "/m"},
		"data home":     {vars: map[string]string{"XDG_DATA_HOME": "/x", "HOME": "/h"}, want: "/x/manifestctl"},
		"relative":      {vars: map[string]string{"XDG_DATA_HOME": "x", "HOME": "/h"}, want: "/h/.local/share/manifestctl"},
		"D14/no HOME":   {},
		"D14/with flag": {flag: "/f", want: "/f"},
	} {
		t.Run(name, func(t *testing.T) {
			e := testEnv(tc.vars)
			e.globals.root = tc.flag
			got, err := e.storeRoot()
			if tc.want == "" {
				require.ErrorIs(t, err, errUsage)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.want, filepath.ToSlash(got))
		})
	}
}
