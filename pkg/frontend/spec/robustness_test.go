package spec_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/frontend/spec"
	"github.com/manifestctl/manifestctl/pkg/graph"
)

// TestRefused holds the rows of hostile input that a spec can carry: each is refused before anything is run.
func TestRefused(t *testing.T) {
	for name, tc := range map[string]struct{ step, want string }{
		"E11 workdir is a descriptor":       {"{run: x, workdir: /proc/self/fd/7}", "is the kernel's"},
		"E11 workdir below sys":             {"{run: x, workdir: /sys/fs}", "is the kernel's"},
		"E11 workdir goes up":               {"{run: x, workdir: /a/../../b}", `holds ".."`},
		"E14 cache source goes up":          {"{run: x, mounts: [{type: cache, target: /c, from: debian, source: /../..}]}", `holds ".."`},
		"E14 cache id with a line break":    {`{run: x, mounts: [{type: cache, target: /c, id: "a\nb"}]}`, "the id of a mount"},
		"E15 bind source goes up":           {"{run: x, mounts: [{type: bind, source: ../.., target: /c}]}", "outside of the context"},
		"E15 bind source is absolute":       {"{run: x, mounts: [{type: bind, source: /etc, target: /c}]}", "is absolute"},
		"E15 bind source is a link out":     {"{run: x, mounts: [{type: bind, source: out, target: /c}]}", "leaves the context"},
		"E15 bind over proc":                {"{run: x, mounts: [{type: bind, source: ., target: /proc}]}", "is the kernel's"},
		"E15 bind over the root":            {"{run: x, mounts: [{type: bind, source: ., target: /}]}", "is the root directory"},
		"E15 propagation":                   {"{run: x, mounts: [{type: bind, source: ., target: /c, bind-propagation: rshared}]}", "unknown key"},
		"E15 options in the type":           {"{run: x, mounts: [{type: 'bind,rw', source: ., target: /c}]}", "is not one of"},
		"E16 secret's id goes up":           {"{run: x, mounts: [{type: secret, id: ../../etc/shadow}]}", `holds ".."`},
		"E31 privileged":                    {"{run: x, security: insecure}", "unknown key"},
		"A01 path goes up":                  {"{files: [{path: /../x, content: x}]}", `holds ".."`},
		"A07 hardlink goes up":              {"{files: [{path: /x, type: hardlink, target: /../etc/shadow}]}", `holds ".."`},
		"A17 NUL in a path":                 {`{files: [{path: "/a\0b", content: x}]}`, "NUL"},
		"A17 NUL in a variable of the step": {`{run: x, env: {A: "\0"}}`, "NUL"},
		"A17 NUL in a command":              {`{run: "a\0b"}`, "NUL"},
		"A18 long name":                     {"{files: [{path: /" + string(make256()) + ", content: x}]}", "too long"},
		"A27 overlay's attribute":           {"{files: [{path: /x, content: x, xattrs: {trusted.overlay.redirect: x}}]}", "reserved"},
		"A28 owner out of range":            {"{files: [{path: /x, content: x, owner: '4294967295'}]}", "is not an owner"},
		"A29 time out of range":             {"{files: [{path: /x, content: x, mtime: 1000000000000000000}]}", "is not a time"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tree(t, map[string]string{"rootfs.yaml": "version: 1\nfrom: debian\nsteps:\n  - " + tc.step + "\n", "out@": "/etc"})
			_, err := load(t, dir, filepath.Join(dir, "rootfs.yaml"))
			require.ErrorIs(t, err, spec.ErrInvalid)
			assert.Contains(t, err.Error(), tc.want)
			assert.Contains(t, err.Error(), "rootfs.yaml:4:")
		})
	}
}

func make256() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = 'a'
	}
	return b
}

// E30: whatever a step's outcome may depend on is in its vertex; what people see of it is not.
func TestE30WhatAStepDependsOn(t *testing.T) {
	digest := func(text string) string {
		dir := tree(t, map[string]string{"rootfs.yaml": text, "f": "", "g": "", "d/": ""})
		b, err := load(t, dir, filepath.Join(dir, "rootfs.yaml"))
		require.NoError(t, err, text)
		return b.Targets[0].Root.Digest().String()
	}
	const args, base = "version: 1\nargs: {A: x}\n", "from: debian\n"
	step := func(s string) string { return args + base + "steps: [" + s + "]\n" }
	want := digest(step("{run: x}"))
	for name, other := range map[string]string{
		"command":           step("{run: y}"),
		"list":              step("{run: [x]}"),
		"argument":          "version: 1\nargs: {A: y}\n" + base + "steps: [{run: x}]\n",
		"one more argument": "version: 1\nargs: {A: x, B: ''}\n" + base + "steps: [{run: x}]\n",
		"base":              args + "from: alpine\nsteps: [{run: x}]\n",
		"platform":          args + "platforms: [linux/arm64]\n" + base + "steps: [{run: x}]\n",
		"network":           step("{run: x, network: host}"),
		"env":               step("{run: x, env: {B: y}}"),
		"user":              step("{run: x, user: '1'}"),
		"workdir":           step("{run: x, workdir: /w}"),
		"shell":             step("{run: x, shell: [/bin/bash, -c]}"),
		"tmpfs":             step("{run: x, mounts: [{type: tmpfs, target: /t}]}"),
		"cache":             step("{run: x, mounts: [{type: cache, target: /t}]}"),
		"secret":            step("{run: x, mounts: [{type: secret, id: t}]}"),
		"bind":              step("{run: x, mounts: [{type: bind, source: f, target: /t}]}"),
		"other bind":        step("{run: x, mounts: [{type: bind, source: g, target: /t}]}"),
		"step before":       step("{files: []}, {run: x}"),
	} {
		assert.NotEqual(t, want, digest(other), name)
	}
	assert.Equal(t, want, digest(step("{run: x, name: 'a name'}")), "a name")
	assert.Equal(t, want, digest("# comment\n\n"+step("{run: x}")), "the place")
	assert.Equal(t, want, digest(args+"config: {env: {A: b}}\n"+base+"steps: [{run: x}]\n"), "the config")
	assert.Equal(t, digest(step("{run: x, env: {B: 1, C: 2}}")), digest(step("{run: x, env: {C: 2, B: 1}}")), "the order of variables")
}

// Steps that are alike in several places of a spec are one vertex, made once.
func TestEqualVerticesAreOne(t *testing.T) {
	dir := tree(t, map[string]string{"rootfs.yaml": `version: 1
platforms: [linux/amd64, linux/arm64]
from: scratch
stages:
  a: {from: scratch, steps: [{files: [{path: /same, content: x}]}]}
steps:
  - files: [{path: /same, content: x}]
  - copy: {from: a, source: /same, path: /copy}
`})
	b, err := load(t, dir, filepath.Join(dir, "rootfs.yaml"))
	require.NoError(t, err)
	first, second := b.Targets[0].Root, b.Targets[1].Root
	assert.Same(t, first, second)
	assert.Same(t, first.Inputs[0], first.Inputs[1])
	assert.Empty(t, first.Meta.For)
}

// BenchmarkLoad is a tree of many files for five platforms.
func BenchmarkLoad(b *testing.B) {
	dir := b.TempDir()
	for i := range 100 {
		sub := filepath.Join(dir, "d", string(rune('a'+i%26)), string(rune('a'+i/26)))
		require.NoError(b, os.MkdirAll(sub, 0o755))
		for j := range 100 {
			require.NoError(b, os.WriteFile(filepath.Join(sub, string(rune('0'+j%10))+string(rune('0'+j/10))), nil, 0o644))
		}
	}
	file := filepath.Join(dir, "rootfs.yaml")
	require.NoError(b, os.WriteFile(file, []byte("version: 1\nplatforms: [linux/amd64, linux/arm64, linux/arm/v7, linux/riscv64, linux/s390x]\n"+
		"from: debian\nsteps: [{files: [{path: /d, source: d}]}]\n"), 0o644))
	for b.Loop() {
		build, err := load(b, dir, file)
		require.NoError(b, err)
		require.Len(b, build.Targets[4].Root.Op.(graph.Layer).Entries, 10127)
	}
}
