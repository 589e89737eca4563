package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/store"
)

func TestExitCode(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want int
	}{
		"unknown kind":             {errors.New("disk on fire"), exitFailed},
		"usage":                    {usagef("no"), exitUsage},
		"usage around a cause":     {usagef("--x: %w", platform.ErrInvalid), exitUsage},
		"platform":                 {fmt.Errorf("reading: %w", platform.ErrInvalid), exitUsage},
		"not found in the store":   {store.ErrNotFound, exitNotFound},
		"denied":                   {fmt.Errorf("pushing: %w", registry.ErrDenied), exitDenied},
		"findings":                 {&findingsError{text: "2 findings"}, exitFindings},
		"host before what it hits": {errors.Join(store.ErrNotFound, emulate.ErrNoEmulator), exitHost},
		"spec":                     {fmt.Errorf("rootfs.yaml: %w", build.ErrSpec), exitUsage},
		"step":                     {fmt.Errorf("RUN false: %w", build.ErrStep), exitStep},
		"step whose base is gone":  {fmt.Errorf("%w: %w", build.ErrStep, registry.ErrNotFound), exitNotFound},
		"host":                     {fmt.Errorf("%w: %w", build.ErrStep, build.ErrHost), exitHost},
		"no space":                 {fmt.Errorf("writing: %w", store.ErrNoSpace), exitHost},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, tc.want, exitCode(tc.err))
		})
	}
}

func TestExitTable(t *testing.T) {
	codes := map[int]bool{}
	for _, row := range exitTable {
		assert.False(t, codes[row.code], "code %d stands twice", row.code)
		codes[row.code] = true
	}
	for _, row := range errorKinds {
		assert.True(t, codes[row.code], "code %d is not in the table", row.code)
	}
}

func TestFail(t *testing.T) {
	var out bytes.Buffer
	e := &env{stderr: &out}
	code := e.fail(t.Context(), usagef("bad \x1b[31mthing").withHint("do %s", "that"))
	assert.Equal(t, exitUsage, code)
	assert.Equal(t, "manifestctl: bad \\u001b[31mthing\nhint: do that\n", out.String())

	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(&signalError{text: "interrupted", code: exitInterrupted})
	assert.Equal(t, exitInterrupted, e.fail(ctx, context.Canceled))
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"plain\n\ttext é 日本": "plain\n\ttext é 日本",
		"a\x1b]52;c;x\a":     `a\u001b]52;c;x\u0007`,
		"a\rb":               `a\u000db`,
		"a\u202eb":           `a\u202eb`,
	} {
		assert.Equal(t, want, escape(in))
	}
}
